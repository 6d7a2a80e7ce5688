//! How a guest asks to be switched off or reset: the ACPI sleep and reset registers, the keyboard controller, the reset
//! vector.
//!
//! Plain decisions, no state: (register, value) → request. Whoever owns the bus carries the request out.

use crate::layout::{ACPI_PORT, RESET_REGISTER, RESET_VALUE, SLEEP_CONTROL, SLEEP_TYPE_S5};

/// What the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Enter S5: the guest is done.
    PowerOff,
    /// Start over.
    Reset,
}

/// `SLP_EN` in SLEEP_CONTROL (ACPI 6.5 §4.8.3.7).
const SLEEP_ENABLE: u8 = 1 << 5;
/// What SLEEP_STATUS reads: `WAK_STS`. Whoever gets to read it has not gone to sleep.
pub(super) const WAKE_STATUS: u8 = 1 << 7;
const SLEEP_TYPE_SHIFT: u8 = 2;
const SLEEP_TYPE_MASK: u8 = 0b111;

/// A write to one of the ACPI registers.
pub(super) fn acpi_write(offset: u16, value: u8) -> Option<Request> {
    match offset {
        SLEEP_CONTROL if value & SLEEP_ENABLE != 0 => {
            let kind = (value >> SLEEP_TYPE_SHIFT) & SLEEP_TYPE_MASK;
            (kind == SLEEP_TYPE_S5).then_some(Request::PowerOff)
        }
        RESET_REGISTER if value == RESET_VALUE => Some(Request::Reset),
        _ => None,
    }
}

/// The program at the reset vector, in real mode: writes the reset register.
///
/// Linux needs it: on hardware-reduced ACPI it resets by EFI, and where there is none it jumps to the BIOS, past the
/// reset register and the keyboard controller (`efi_reboot_required` in arch/x86/platform/efi/quirks.c).
#[rustfmt::skip]
pub(super) const RESET_PROGRAM: [u8; 9] = {
    let [low, high] = (ACPI_PORT + RESET_REGISTER).to_le_bytes();
    [
        0xba, low, high,    // mov dx, port
        0xb0, RESET_VALUE,  // mov al, value
        0xee,               // out dx, al
        0xf4,               // hlt
        0xeb, 0xfd,         // jmp back to hlt
    ]
};

mod i8042 {
    pub(super) const DATA: u16 = 0;
    pub(super) const SYSTEM_CONTROL: u16 = 1;
    pub(super) const COMMAND: u16 = 4;
    /// Pulse the output line that is wired to the CPU's reset.
    pub(super) const RESET_CPU: u8 = 0xfe;
    /// System control port: timer 2's output. A guest that waits for the timer must not wait for ever.
    pub(super) const TIMER_2_OUT: u8 = 1 << 5;
}

/// A write to a keyboard controller port, by its offset from 0x60.
pub(super) fn i8042_write(offset: u16, value: u8) -> Option<Request> {
    (offset == i8042::COMMAND && value == i8042::RESET_CPU).then_some(Request::Reset)
}

/// A read from a keyboard controller port: no key was pressed and there is room for a command.
pub(super) fn i8042_read(offset: u16) -> u8 {
    match offset {
        i8042::SYSTEM_CONTROL => i8042::TIMER_2_OUT,
        i8042::DATA | i8042::COMMAND => 0,
        _ => 0xff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_s5_with_the_enable_bit_switches_off() {
        assert_eq!(acpi_write(SLEEP_CONTROL, SLEEP_TYPE_S5 << 2 | SLEEP_ENABLE), Some(Request::PowerOff));
        assert_eq!(acpi_write(SLEEP_CONTROL, SLEEP_TYPE_S5 << 2), None);
        assert_eq!(acpi_write(SLEEP_CONTROL, 3 << 2 | SLEEP_ENABLE), None);
    }

    #[test]
    fn only_the_announced_value_resets() {
        assert_eq!(acpi_write(RESET_REGISTER, RESET_VALUE), Some(Request::Reset));
        assert_eq!(acpi_write(RESET_REGISTER, 0), None);
        assert_eq!(i8042_write(4, 0xfe), Some(Request::Reset));
        assert_eq!(i8042_write(0, 0xfe), None);
        assert_eq!(i8042_write(4, 0xff), None);
    }

    #[test]
    fn timer_two_has_always_expired_and_no_key_was_ever_pressed() {
        assert_eq!(i8042_read(1), 0x20);
        assert_eq!(i8042_read(4), 0);
    }
}
