//! EDGE: reads both clocks at once. The only place of this crate's DHCP that does.

use std::time::{Duration, SystemTime};

use crate::moment::Moment;

/// Now.
pub(crate) fn now() -> Moment {
    let mut boot = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime writes one timespec through the pointer, which is to a live, owned one.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut boot) };
    debug_assert_eq!(failed, 0, "CLOCK_BOOTTIME is in every kernel since 2.6.39");
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment { boot: Duration::new(boot.tv_sec.unsigned_abs(), boot.tv_nsec.unsigned_abs() as u32), wall }
}
