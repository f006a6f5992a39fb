//! A civil date and time, and `strftime` over it. The caller brings the time: nothing here asks a clock.

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const SECONDS_PER_DAY: i64 = 86_400;
const MINUTES_PER_DAY: i64 = 1_440;
/// Longest format, in bytes. Two of them may become some thirty.
const MAX_FORMAT: usize = 1 << 12;

/// Date and time of day, without a time zone: what a clock on the wall shows.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct DateTime {
    year: i32,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

/// Days from 1970-01-01 to a date (proleptic Gregorian; Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `days_from_civil`).
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

impl DateTime {
    /// From seconds since 1970-01-01 UTC and the zone's offset in minutes east of UTC. Years 1 to 9999; times
    /// outside are held at the nearest.
    pub fn from_unix(seconds: i64, offset_minutes: i32) -> DateTime {
        let (first, last) = (days_from_civil(1, 1, 1), days_from_civil(9999, 12, 31));
        let offset = i64::from(offset_minutes).clamp(-MINUTES_PER_DAY, MINUTES_PER_DAY) * 60;
        let seconds = seconds.saturating_add(offset);
        let days = seconds.div_euclid(SECONDS_PER_DAY).clamp(first, last);
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        // `civil_from_days` of the same source.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        DateTime {
            year: year as i32,
            month: month as u8,
            day: day as u8,
            hour: (second / 3600) as u8,
            minute: (second / 60 % 60) as u8,
            second: (second % 60) as u8,
        }
    }

    /// From an ISO 8601 text, `2025-03-14` with or without `T15:09` or `T15:09:26`; a fraction and a zone at the
    /// end are left aside. `None` for anything else.
    pub fn from_iso(text: &str) -> Option<DateTime> {
        let (date, time) = text.trim().split_once(['T', ' ']).unwrap_or((text.trim(), "00:00:00"));
        let mut date = date.splitn(3, '-').map(|part| part.parse::<u32>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let time = time.split(['.', 'Z', '+', '-']).next()?;
        let mut time = time.splitn(3, ':').map(|part| part.parse::<u32>().ok());
        let (hour, minute, second) = (time.next()??, time.next()??, time.next().unwrap_or(Some(0))?);
        let fits = (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
        let clock = hour < 24 && minute < 60 && second < 60;
        (fits && clock).then_some(DateTime {
            year: year as i32,
            month: month as u8,
            day: day as u8,
            hour: hour as u8,
            minute: minute as u8,
            second: second as u8,
        })
    }

    fn days(&self) -> i64 {
        days_from_civil(self.year.into(), self.month.into(), self.day.into())
    }

    /// Python's `strftime` in the C locale.
    pub(super) fn format(&self, format: &str) -> Result<String, Error> {
        if format.len() > MAX_FORMAT {
            return Err(Error::new(ErrorKind::InvalidOperation, "the format of strftime_now is too long"));
        }
        let weekday = (self.days() + 3).rem_euclid(7) as usize;
        let day_of_year = self.days() - days_from_civil(self.year.into(), 1, 1) + 1;
        let month = MONTHS[usize::from(self.month - 1)];
        let hour12 = (self.hour + 11) % 12 + 1;
        let half = if self.hour < 12 { "AM" } else { "PM" };
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let mut code = chars.next();
            let unpadded = code == Some('-');
            if unpadded {
                code = chars.next();
            }
            let number = |value: i64, width: usize| match unpadded {
                true => value.to_string(),
                false => format!("{value:0width$}"),
            };
            let part = match code {
                Some('Y') => number(self.year.into(), 4),
                Some('y') => number((self.year % 100).into(), 2),
                Some('m') => number(self.month.into(), 2),
                Some('d') => number(self.day.into(), 2),
                Some('e') => format!("{:2}", self.day),
                Some('H') => number(self.hour.into(), 2),
                Some('I') => number(hour12.into(), 2),
                Some('M') => number(self.minute.into(), 2),
                Some('S') => number(self.second.into(), 2),
                Some('f') => number(0, 6),
                Some('j') => number(day_of_year, 3),
                Some('p') => half.to_owned(),
                Some('A') => WEEKDAYS[weekday].to_owned(),
                Some('a') => WEEKDAYS[weekday][..3].to_owned(),
                Some('B') => month.to_owned(),
                Some('b' | 'h') => month[..3].to_owned(),
                Some('u') => (weekday + 1).to_string(),
                Some('w') => ((weekday + 1) % 7).to_string(),
                Some('F') => self.format("%Y-%m-%d")?,
                Some('T' | 'X') => self.format("%H:%M:%S")?,
                Some('R') => self.format("%H:%M")?,
                Some('D' | 'x') => self.format("%m/%d/%y")?,
                Some('c') => self.format("%a %b %e %H:%M:%S %Y")?,
                Some('n') => "\n".to_owned(),
                Some('t') => "\t".to_owned(),
                Some('%') => "%".to_owned(),
                // The wall clock's zone is not known; Python prints nothing for a time without one.
                Some('z' | 'Z') => String::new(),
                other => {
                    let code = other.map(String::from).unwrap_or_default();
                    return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know %{code}")));
                }
            };
            out.push_str(&part);
        }
        Ok(out)
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::DateTime;

    #[test]
    fn dates_come_back_from_seconds() {
        let cases = [(0, "1970-01-01 00:00:00 4"), (951_782_400, "2000-02-29 00:00:00 2")];
        for (seconds, text) in cases {
            assert_eq!(DateTime::from_unix(seconds, 0).format("%F %T %u").expect("a format"), text);
        }
        let (utc, there) = (DateTime::from_unix(1_741_964_966, 0), DateTime::from_unix(1_741_964_966 - 7200, 120));
        assert_eq!(Some(utc), DateTime::from_iso("2025-03-14T15:09:26.5Z"));
        assert_eq!(utc, there);
        let _ = (DateTime::from_unix(i64::MIN, i32::MIN), DateTime::from_unix(i64::MAX, i32::MAX));
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in ["", "2025", "2025-13-01", "2025-02-29", "2025-03-14T25:00", "-1-01-01", "yesterday"] {
            assert_eq!(DateTime::from_iso(text), None, "{text}");
        }
        assert!(DateTime::from_iso("2025-03-14").is_some());
    }
}
