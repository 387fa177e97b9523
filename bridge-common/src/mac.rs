//! MAC addresses.

use core::fmt;

/// A 48-bit MAC address in transmission order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The bytes as a number, the first one lowest: what a program keeps in one register.
    #[inline(always)]
    pub const fn to_bits(self) -> u64 {
        let [m0, m1, m2, m3, m4, m5] = self.0;
        u64::from_le_bytes([m0, m1, m2, m3, m4, m5, 0, 0])
    }

    /// The address of which this is the number, in the lower 48 bits; the others are ignored.
    #[inline(always)]
    pub const fn from_bits(bits: u64) -> Self {
        let [m0, m1, m2, m3, m4, m5, _, _] = bits.to_le_bytes();
        Self([m0, m1, m2, m3, m4, m5])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            write!(formatter, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A text that is not a MAC address of the form `aa:bb:cc:dd:ee:ff`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMac;

impl fmt::Display for NotAMac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not a MAC address; write it as 52:54:00:12:34:56")
    }
}

impl core::error::Error for NotAMac {}

impl core::str::FromStr for Mac {
    type Err = NotAMac;

    fn from_str(text: &str) -> Result<Self, NotAMac> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().ok_or(NotAMac)?;
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(NotAMac);
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| NotAMac)?;
        }
        if parts.next().is_some() {
            Err(NotAMac)
        } else {
            Ok(Self(bytes))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_its_number() {
        let mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
        assert_eq!(mac.to_bits(), 0x5634_1200_5452);
        assert_eq!(Mac::from_bits(0xffff_5634_1200_5452), mac);
    }

    #[test]
    fn text_and_address_are_each_other() {
        let mac: Mac = "52:54:00:aB:cd:0e".parse().unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:0e");
        for wrong in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "52:54:00:12:34:5",
            "52:54:00:12:34:+5",
            "52-54-00-12-34-56",
        ] {
            assert_eq!(wrong.parse::<Mac>(), Err(NotAMac), "{wrong}");
        }
    }
}
