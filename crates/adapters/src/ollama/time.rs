//! Dates as Go writes them.

/// Seconds since 1970-01-01 UTC of a date of RFC 3339; fractions are cut off. `None` for what is no such date, or is
/// before 1970.
pub(super) fn seconds(date: &str) -> Option<u64> {
    let number = |from: usize, to: usize| {
        let digits = date.get(from..to)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<i64>().ok()).flatten()
    };
    let separators = [(4, "-"), (7, "-"), (10, "T"), (13, ":"), (16, ":")];
    if !separators.iter().all(|(at, mark)| date.get(*at..*at + 1).is_some_and(|found| found.eq_ignore_ascii_case(mark)))
    {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let zone = date.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let east = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            sign * (hours.parse::<i64>().ok()?.min(24) * 3600 + minutes.parse::<i64>().ok()?.min(60) * 60)
        }
    };
    // Days of the Gregorian calendar, in years that begin in March: then the leap day is the last one.
    let shifted = if month > 2 { year } else { year - 1 };
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days =
        shifted * 365 + shifted.div_euclid(4) - shifted.div_euclid(100) + shifted.div_euclid(400) + of_year - 719_468;
    u64::try_from(days * 86_400 + hour * 3600 + minute * 60 + second - east).ok()
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn dates_of_every_zone_become_seconds() {
        for (date, expected) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2023-08-04T19:22:45.499127Z", 1_691_176_965),
            ("2023-11-04T14:56:49.277302595-07:00", 1_699_135_009),
            ("2024-03-01T00:00:00+02:00", 1_709_244_000),
            ("2100-03-01t00:00:00z", 4_107_542_400),
        ] {
            assert_eq!(seconds(date), Some(expected), "{date}");
        }
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "now",
            "2024-13-01T00:00:00Z",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01T25:00:00Z",
            "2024-01-01T00:00:00+0200",
            "1969-12-31T23:59:59Z",
            "2024-01-01Tÿ0:00:00Z",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }
}
