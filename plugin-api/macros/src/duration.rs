//! Durations as people write them: `250ms`, `30s`, `5m`, `2h`.

/// The milliseconds of a duration, or what is wrong with it.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong =
        || format!("`{text}` is not a duration: write a number and a unit, such as `250ms`, `30s`, `5m` or `2h`");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (_, scale) = UNITS.into_iter().find(|(name, _)| *name == unit.trim()).ok_or_else(wrong)?;
    match number.checked_mul(scale) {
        Some(0) => Err(format!("a timeout of `{text}` would end every job at once; leave it out for no timeout")),
        Some(milliseconds) => Ok(milliseconds),
        None => Err(format!("`{text}` is longer than can be counted")),
    }
}

#[cfg(test)]
mod tests {
    use super::milliseconds;

    #[test]
    fn durations_have_a_number_and_a_unit() {
        assert_eq!(milliseconds("250ms"), Ok(250));
        assert_eq!(milliseconds("30s"), Ok(30_000));
        assert_eq!(milliseconds("2 h"), Ok(7_200_000));
        for wrong in ["", "s", "30", "30 seconds", "-1s", "1.5s", "0s", "99999999999999999999s"] {
            assert!(milliseconds(wrong).is_err(), "{wrong}");
        }
    }
}
