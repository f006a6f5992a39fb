//! A civil date and time, and `strftime` over it. The caller brings the time: nothing here asks a clock.

use super::fault::{Result, fail};

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
const WEEKDAYS: [&str; 7] = [
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
    "Sunday",
];
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
    pub fn from_unix(seconds: i64, offset_minutes: i32) -> Self {
        let (first, last) = (days_from_civil(1, 1, 1), days_from_civil(9999, 12, 31));
        let offset = i64::from(offset_minutes).clamp(-MINUTES_PER_DAY, MINUTES_PER_DAY) * 60;
        let seconds = seconds.saturating_add(offset);
        let days = seconds.div_euclid(SECONDS_PER_DAY).clamp(first, last);
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        // `civil_from_days` of the same source.
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 {
            month_from_march + 3
        } else {
            month_from_march - 9
        };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self {
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
    pub fn from_iso(text: &str) -> Option<Self> {
        let (date, time) = text
            .trim()
            .split_once(['T', ' '])
            .unwrap_or((text.trim(), "00:00:00"));
        let mut date = date.splitn(3, '-').map(|part| part.parse::<u32>().ok());
        let (year, month, day) = (date.next()??, date.next()??, date.next()??);
        let time = time.split(['.', 'Z', '+', '-']).next()?;
        let mut time = time.splitn(3, ':').map(|part| part.parse::<u32>().ok());
        let (hour, minute, second) = (
            time.next()??,
            time.next()??,
            time.next().unwrap_or(Some(0))?,
        );
        let fits = (1..=9999).contains(&year)
            && (1..=12).contains(&month)
            && (1..=days_in(year, month)).contains(&day);
        let clock = hour < 24 && minute < 60 && second < 60;
        (fits && clock).then_some(Self {
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

    /// Python's `strftime` in the C locale, as on Linux: glibc's flags count, and what is no code stays as it is.
    pub(super) fn format(&self, format: &str) -> Result<String> {
        if format.len() > MAX_FORMAT {
            return fail("the format of strftime_now is too long");
        }
        let mut out = String::new();
        let mut rest = format;
        while let Some(at) = rest.find('%') {
            out.push_str(&rest[..at]);
            let field = &rest[at..];
            let code = field[1..].trim_start_matches(['-', '_', '0', '^', '#']);
            let flags = &field[1..field.len() - code.len()];
            // Other ways of writing, which the C locale does not have.
            let code = code.strip_prefix(['E', 'O']).unwrap_or(code);
            let (part, taken) = match code.chars().next() {
                Some(letter) => (self.field(letter, flags.chars().last())?, letter.len_utf8()),
                None => (None, 0),
            };
            rest = &code[taken..];
            match part {
                Some(part) if flags.contains('^') => out.push_str(&part.to_uppercase()),
                Some(part) if flags.contains('#') => {
                    let upper = part.chars().any(char::is_lowercase);
                    out.push_str(&if upper {
                        part.to_uppercase()
                    } else {
                        part.to_lowercase()
                    });
                }
                Some(part) => out.push_str(&part),
                None => out.push_str(&field[..field.len() - rest.len()]),
            }
        }
        out.push_str(rest);
        Ok(out)
    }

    /// What a code stands for; `None` for what is no code.
    fn field(&self, code: char, flag: Option<char>) -> Result<Option<String>> {
        let number = |value: i64, width: usize, pad: char| match flag
            .filter(|flag| "-_0".contains(*flag))
            .unwrap_or(pad)
        {
            '-' => value.to_string(),
            '0' => format!("{value:0width$}"),
            _ => format!("{value:width$}"),
        };
        let zeros = |value: i64, width| number(value, width, '0');
        let weekday = (self.days() + 3).rem_euclid(7) as usize;
        let (year, day_of_year) = (
            i64::from(self.year),
            self.days() - days_from_civil(self.year.into(), 1, 1),
        );
        let month = MONTHS[usize::from(self.month - 1)];
        let hour12 = i64::from((self.hour + 11) % 12 + 1);
        let half = if self.hour < 12 { "AM" } else { "PM" };
        // The ISO year is the one that the week's Thursday lies in.
        let thursday = self.days() + 3 - weekday as i64;
        let iso_year = match thursday {
            day if day < days_from_civil(year, 1, 1) => year - 1,
            day if day >= days_from_civil(year + 1, 1, 1) => year + 1,
            _ => year,
        };
        let iso_week = (thursday - days_from_civil(iso_year, 1, 1)) / 7 + 1;
        // Weeks that begin on a day, counted from the first such day of the year.
        let week = |days_since: i64| (day_of_year + 7 - days_since) / 7;
        Ok(Some(match code {
            'Y' => number(year, 1, '-'),
            'C' => zeros(year / 100, 2),
            'y' => zeros(year % 100, 2),
            'G' => number(iso_year, 1, '-'),
            'g' => zeros(iso_year % 100, 2),
            'm' => zeros(self.month.into(), 2),
            'd' => zeros(self.day.into(), 2),
            'e' => number(self.day.into(), 2, '_'),
            'H' => zeros(self.hour.into(), 2),
            'k' => number(self.hour.into(), 2, '_'),
            'I' => zeros(hour12, 2),
            'l' => number(hour12, 2, '_'),
            'M' => zeros(self.minute.into(), 2),
            'S' => zeros(self.second.into(), 2),
            'f' => "000000".to_owned(),
            's' => (self.days() * SECONDS_PER_DAY + self.seconds()).to_string(),
            'j' => zeros(day_of_year + 1, 3),
            'U' => zeros(week(((weekday + 1) % 7) as i64), 2),
            'W' => zeros(week(weekday as i64), 2),
            'V' => zeros(iso_week, 2),
            'p' => half.to_owned(),
            'P' => half.to_lowercase(),
            'A' => WEEKDAYS[weekday].to_owned(),
            'a' => WEEKDAYS[weekday][..3].to_owned(),
            'B' => month.to_owned(),
            'b' | 'h' => month[..3].to_owned(),
            'u' => (weekday + 1).to_string(),
            'w' => ((weekday + 1) % 7).to_string(),
            'F' => self.format("%Y-%m-%d")?,
            'T' | 'X' => self.format("%H:%M:%S")?,
            'R' => self.format("%H:%M")?,
            'r' => self.format("%I:%M:%S %p")?,
            'D' | 'x' => self.format("%m/%d/%y")?,
            'c' => self.format("%a %b %e %H:%M:%S %Y")?,
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            // The wall clock's zone is not known; Python prints nothing for a time without one.
            'z' | 'Z' => String::new(),
            _ => return Ok(None),
        }))
    }

    fn seconds(&self) -> i64 {
        (i64::from(self.hour) * 60 + i64::from(self.minute)) * 60 + i64::from(self.second)
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    match month {
        2 if year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)) => {
            29
        }
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
        let cases = [
            (0, "1970-01-01 00:00:00 4"),
            (951_782_400, "2000-02-29 00:00:00 2"),
        ];
        for (seconds, text) in cases {
            assert_eq!(
                DateTime::from_unix(seconds, 0)
                    .format("%F %T %u")
                    .expect("a format"),
                text
            );
        }
        let (utc, there) = (
            DateTime::from_unix(1_741_964_966, 0),
            DateTime::from_unix(1_741_964_966 - 7200, 120),
        );
        assert_eq!(Some(utc), DateTime::from_iso("2025-03-14T15:09:26.5Z"));
        assert_eq!(utc, there);
        let _ = (
            DateTime::from_unix(i64::MIN, i32::MIN),
            DateTime::from_unix(i64::MAX, i32::MAX),
        );
    }

    #[test]
    fn nonsense_is_no_date() {
        for text in [
            "",
            "2025",
            "2025-13-01",
            "2025-02-29",
            "2025-03-14T25:00",
            "-1-01-01",
            "yesterday",
        ] {
            assert_eq!(DateTime::from_iso(text), None, "{text}");
        }
        assert!(DateTime::from_iso("2025-03-14").is_some());
    }
}
