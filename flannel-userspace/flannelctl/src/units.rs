//! Figures as people read them.

/// Seconds since something, in its largest unit.
pub(super) fn ago(seconds: Option<u64>) -> String {
    seconds.map_or_else(|| "never".to_owned(), |seconds| format!("{} ago", duration(seconds)))
}

/// A span of time, rounded down to its largest unit.
pub(super) fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A number of things with this name.
pub(super) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A number of bytes in units of 1024.
pub(super) fn bytes(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB", "PiB"])
}

/// How many a second are so many in `seconds`.
pub(super) fn per_second(count: u64, seconds: f64) -> u64 {
    (count as f64 / seconds.max(f64::EPSILON)).round() as u64
}

/// Bits a second from bytes a second, in units of 1000 as usual for links.
pub(super) fn bits_per_second(bytes: u64) -> String {
    scaled(bytes.saturating_mul(8), 1000, &["bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s"])
}

/// Up to four digits, in the largest unit that leaves one before the point.
fn scaled(value: u64, step: u64, units: &[&str]) -> String {
    let (mut unit, mut scale) = (0, 1_u64);
    while value / scale >= step && unit + 1 < units.len() {
        scale = scale.saturating_mul(step);
        unit += 1;
    }
    let (whole, tenth) = (value / scale, u128::from(value % scale) * 10 / u128::from(scale));
    let name = units.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{whole} {name}") } else { format!("{whole}.{tenth} {name}") }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{ago, bits_per_second, bytes};

    #[rstest]
    #[case(None, "never")]
    #[case(Some(0), "0 s ago")]
    #[case(Some(119), "119 s ago")]
    #[case(Some(120), "2 min ago")]
    #[case(Some(7200), "2 h ago")]
    #[case(Some(172_800), "2 d ago")]
    fn time_ago(#[case] seconds: Option<u64>, #[case] text: &str) {
        assert_eq!(ago(seconds), text);
    }

    #[rstest]
    #[case(0, "0 B")]
    #[case(1023, "1023 B")]
    #[case(1024, "1.0 KiB")]
    #[case(1_610_612_736, "1.5 GiB")]
    #[case(u64::MAX, "16383.9 PiB")]
    fn amount(#[case] value: u64, #[case] text: &str) {
        assert_eq!(bytes(value), text);
    }

    #[test]
    fn rate() {
        assert_eq!(bits_per_second(125_000_000), "1.0 Gbit/s");
        assert_eq!(bits_per_second(10), "80 bit/s");
    }
}
