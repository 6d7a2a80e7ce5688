//! The CMOS real-time clock as an OS reads it at boot: the wall clock in UTC and 128 bytes of RAM.
//!
//! Plain state; `now` is passed in. There are no alarms and no periodic interrupts, and writing the time changes nothing:
//! the host's clock is the guest's. Registers are those of the MC146818 data sheet.

use std::time::{Duration, SystemTime};

mod register {
    pub(super) const SECONDS: u8 = 0;
    pub(super) const MINUTES: u8 = 2;
    pub(super) const HOURS: u8 = 4;
    pub(super) const WEEKDAY: u8 = 6;
    pub(super) const DAY: u8 = 7;
    pub(super) const MONTH: u8 = 8;
    pub(super) const YEAR: u8 = 9;
    pub(super) const A: u8 = 0xa;
    pub(super) const B: u8 = 0xb;
    pub(super) const C: u8 = 0xc;
    pub(super) const D: u8 = 0xd;
    pub(super) const CENTURY: u8 = 0x32;
}

/// Register A: the 32768 Hz divider chain runs, 1024 Hz rate; no update in progress.
const A_RUNNING: u8 = 0x26;
/// Register B: 24-hour mode, BCD, no interrupts.
const B_24_HOURS: u8 = 0x02;
/// Register D: the battery is good.
const D_VALID: u8 = 0x80;

/// The clock chip: an index register and what it selects.
#[derive(Debug)]
pub(super) struct Cmos {
    index: u8,
    ram: [u8; 128],
}

impl Cmos {
    pub(super) fn new() -> Self {
        Cmos { index: 0, ram: [0; 128] }
    }

    /// A read of the index port (offset 0) or the data port (1).
    pub(super) fn read(&self, offset: u16, now: SystemTime) -> u8 {
        if offset == 0 { self.index } else { self.register(now) }
    }

    /// A write; bit 7 of the index is the PC's NMI mask and not part of it.
    pub(super) fn write(&mut self, offset: u16, value: u8) {
        if offset == 0 {
            self.index = value & 0x7f;
        } else {
            self.ram[usize::from(self.index)] = value;
        }
    }

    fn register(&self, now: SystemTime) -> u8 {
        let time = Time::from_unix(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs());
        match self.index {
            register::SECONDS => bcd(time.second),
            register::MINUTES => bcd(time.minute),
            register::HOURS => bcd(time.hour),
            register::WEEKDAY => bcd(time.weekday),
            register::DAY => bcd(time.day),
            register::MONTH => bcd(time.month),
            register::YEAR => bcd((time.year % 100) as u8),
            register::CENTURY => bcd((time.year / 100 % 100) as u8),
            register::A => A_RUNNING,
            register::B => B_24_HOURS,
            register::C => 0,
            register::D => D_VALID,
            other => self.ram[usize::from(other & 0x7f)],
        }
    }
}

fn bcd(value: u8) -> u8 {
    ((value / 10) << 4) | (value % 10)
}

/// A date of the Gregorian calendar in UTC.
#[derive(Debug, PartialEq, Eq)]
struct Time {
    year: u64,
    month: u8,
    day: u8,
    /// 1 is Sunday.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Time {
    /// Seconds since 1970 to a date. Years are counted from March, so that the leap day is a year's last.
    fn from_unix(seconds: u64) -> Self {
        const DAYS_TO_1970: u64 = 719_468; // from 1 March of year 0
        const DAYS_PER_400_YEARS: u64 = 146_097;
        let days = seconds / 86_400;
        let from_march = days + DAYS_TO_1970;
        let (era, day_of_era) = (from_march / DAYS_PER_400_YEARS, from_march % DAYS_PER_400_YEARS);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        // Every value below fits: it is a remainder of a small divisor.
        Time {
            year,
            month: month as u8,
            day: day as u8,
            weekday: ((days + 4) % 7 + 1) as u8,
            hour: (seconds / 3_600 % 24) as u8,
            minute: (seconds / 60 % 60) as u8,
            second: (seconds % 60) as u8,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn read(cmos: &mut Cmos, index: u8, now: SystemTime) -> u8 {
        cmos.write(0, index);
        cmos.read(1, now)
    }

    #[test]
    fn the_clock_reads_as_binary_coded_decimal() {
        let mut cmos = Cmos::new();
        // 2024-02-29 23:58:07 UTC, a Thursday.
        let now = at(1_709_251_087);
        let values = [9, 8, 7, 6, 4, 2, 0, 0x32].map(|index| read(&mut cmos, index, now));
        assert_eq!(values, [0x24, 0x02, 0x29, 0x05, 0x23, 0x58, 0x07, 0x20]);
    }

    #[test]
    fn dates_around_leap_days_and_centuries_are_right() {
        let date = |seconds| {
            let Time { year, month, day, weekday, .. } = Time::from_unix(seconds);
            (year, month, day, weekday)
        };
        assert_eq!(date(0), (1970, 1, 1, 5));
        assert_eq!(date(951_782_400), (2000, 2, 29, 3));
        assert_eq!(date(951_868_800), (2000, 3, 1, 4));
        assert_eq!(date(1_735_603_200), (2024, 12, 31, 3));
        assert_eq!(date(4_107_542_400), (2100, 3, 1, 2));
    }

    #[test]
    fn an_update_is_never_in_progress_and_the_mode_is_24_hour_bcd() {
        let mut cmos = Cmos::new();
        assert_eq!(read(&mut cmos, 0xa, at(0)) & 0x80, 0);
        assert_eq!(read(&mut cmos, 0xb, at(0)), B_24_HOURS);
        assert_eq!(read(&mut cmos, 0xd, at(0)), D_VALID);
    }

    #[test]
    fn the_nmi_mask_is_not_part_of_the_index() {
        let mut cmos = Cmos::new();
        cmos.write(0, 0x80 | 0x40);
        cmos.write(1, 7);
        assert_eq!(read(&mut cmos, 0x40, at(0)), 7);
    }
}
