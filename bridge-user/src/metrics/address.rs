//! Where the endpoint is.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

/// Of the machine alone: what is told names its machines and how busy they are.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A socket of the file system.
    Unix(PathBuf),
    /// A port of TCP.
    Tcp(SocketAddr),
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "must be a PORT of this machine's loopback, ADDRESS:PORT such as 192.0.2.1:9123 or \
                                [2001:db8::1]:9123, or unix:PATH";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(EXPECTED)
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        let port = |text: &str| text.parse().ok().map(|port| SocketAddr::new(LOOPBACK, port));
        let of_loopback = text.strip_prefix("localhost:").or(text.strip_prefix(':'));
        let address = of_loopback.map_or_else(|| text.parse().ok().or_else(|| port(text)), port);
        address.map(Self::Tcp).ok_or(EXPECTED)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
            Self::Tcp(address) => address.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_address_it_is_the_loopbacks() {
        for text in ["9123", ":9123", "localhost:9123", "127.0.0.1:9123"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), "127.0.0.1:9123", "{text}");
        }
        for text in ["0.0.0.0:9123", "[::1]:9123", "[::]:0", "unix:/run/tapbridge.sock"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":",
            "unix:",
            "host:9123",
            "127.0.0.1",
            "127.0.0.1:",
            "::1:9123",
            "65536",
            "-1",
            "127.0.0.1:65536",
            "/run/tapbridge.sock",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
