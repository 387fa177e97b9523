//! How even the shares of several are.

/// Jain's index: 1 if all have the same, one of n if one has all; 0 if nobody has anything.
pub fn fairness(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares > 0.0 {
        sum * sum / (count(shares) * squares)
    } else {
        0.0
    }
}

/// Of who has the least, how many times the mean that is.
pub fn worst(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    if sum > 0.0 {
        least * count(shares) / sum
    } else {
        0.0
    }
}

#[expect(clippy::cast_precision_loss, reason = "few")]
fn count(shares: &[f64]) -> f64 {
    shares.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_are_fair_and_one_for_all_is_not() {
        let both = |shares: &[f64]| [fairness(shares), worst(shares)].map(|share| format!("{share:.3}"));
        assert_eq!(both(&[5.0; 8]), ["1.000", "1.000"]);
        assert_eq!(both(&[28.0, 0.0, 0.0, 0.0]), ["0.250", "0.000"]);
        // (1 + 3)^2 / (2 * (1 + 9)), and a half of the mean of 2.
        assert_eq!(both(&[1.0, 3.0]), ["0.800", "0.500"]);
        assert_eq!(both(&[0.0, 0.0]), ["0.000", "0.000"]);
    }
}
