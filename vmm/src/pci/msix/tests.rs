//! MSI-X as Linux drives it: program an entry, enable, unmask, mask while interrupts come, move to another CPU.

use std::sync::{Arc, Mutex};

use super::*;

#[derive(Default)]
struct Router {
    lines: Mutex<Vec<(EventFd, Option<MsiMessage>)>>,
    changes: Mutex<usize>,
}

impl MsiRoutes for Router {
    fn vector(&self) -> io::Result<MsiVector> {
        let mut lines = self.lines.lock().unwrap();
        let fd = EventFd::new(libc::EFD_NONBLOCK)?;
        lines.push((fd.try_clone()?, None));
        Ok(MsiVector { gsi: lines.len() as u32 - 1, fd })
    }

    fn route(&self, gsi: u32, message: Option<MsiMessage>) -> io::Result<()> {
        *self.changes.lock().unwrap() += 1;
        self.lines.lock().unwrap()[gsi as usize].1 = message;
        Ok(())
    }
}

impl Router {
    /// How often line `gsi` was raised since last asked, and where it goes.
    fn taken(&self, gsi: usize) -> (u64, Option<MsiMessage>) {
        let lines = self.lines.lock().unwrap();
        (lines[gsi].0.read().unwrap_or(0), lines[gsi].1)
    }
}

fn program(vectors: &MsixVectors, vector: u64, message: MsiMessage, masked: bool) {
    vectors.write_table(vector * 16 + 12, &u32::from(true).to_le_bytes());
    vectors.write_table(vector * 16, &(message.address as u32).to_le_bytes());
    vectors.write_table(vector * 16 + 4, &((message.address >> 32) as u32).to_le_bytes());
    vectors.write_table(vector * 16 + 8, &message.data.to_le_bytes());
    vectors.write_table(vector * 16 + 12, &u32::from(masked).to_le_bytes());
}

const HERE: MsiMessage = MsiMessage { address: 0xfee0_1000, data: 0x22 };
const THERE: MsiMessage = MsiMessage { address: 0xfee0_2000, data: 0x33 };

#[test]
fn no_line_is_asked_for_before_a_vector_is_unmasked() {
    let router = Arc::new(Router::default());
    let vectors = MsixVectors::new(3, router.clone());
    vectors.set_control(CONTROL_ENABLE);
    program(&vectors, 0, HERE, true);
    assert!(router.lines.lock().unwrap().is_empty());
    program(&vectors, 0, HERE, false);
    assert_eq!(router.taken(0), (0, Some(HERE)));
}

#[test]
fn an_interrupt_while_masked_is_pending_and_comes_on_unmask() {
    let router = Arc::new(Router::default());
    let vectors = MsixVectors::new(70, router.clone());
    vectors.set_control(CONTROL_ENABLE);
    program(&vectors, 65, HERE, false);
    vectors.raise(65);
    assert_eq!(router.taken(0).0, 1);
    vectors.write_table(65 * 16 + 12, &[1, 0, 0, 0]);
    vectors.raise(65);
    vectors.raise(65);
    assert_eq!(router.taken(0).0, 0);
    let mut pending = [0; 16];
    vectors.read_pending(0, &mut pending);
    assert_eq!(pending[8], 2);
    vectors.write_table(65 * 16 + 12, &[0, 0, 0, 0]);
    assert_eq!(router.taken(0).0, 1);
    vectors.read_pending(0, &mut pending);
    assert_eq!(pending, [0; 16]);
}

#[test]
fn the_function_mask_holds_all_vectors_back() {
    let router = Arc::new(Router::default());
    let vectors = MsixVectors::new(2, router.clone());
    vectors.set_control(CONTROL_ENABLE);
    program(&vectors, 1, HERE, false);
    vectors.set_control(CONTROL_ENABLE | CONTROL_FUNCTION_MASK);
    vectors.raise(1);
    assert_eq!(router.taken(0).0, 0);
    vectors.set_control(CONTROL_ENABLE);
    assert_eq!(router.taken(0).0, 1);
}

#[test]
fn masking_and_unmasking_changes_no_route_but_a_new_message_does() {
    let router = Arc::new(Router::default());
    let vectors = MsixVectors::new(1, router.clone());
    vectors.set_control(CONTROL_ENABLE);
    program(&vectors, 0, HERE, false);
    for _ in 0..10 {
        vectors.write_table(12, &[1, 0, 0, 0]);
        vectors.write_table(12, &[0, 0, 0, 0]);
    }
    assert_eq!(*router.changes.lock().unwrap(), 1);
    program(&vectors, 0, THERE, false);
    assert_eq!((*router.changes.lock().unwrap(), router.taken(0).1), (2, Some(THERE)));
}

#[test]
fn with_msix_off_nothing_is_raised_or_remembered() {
    let router = Arc::new(Router::default());
    let vectors = MsixVectors::new(1, router.clone());
    vectors.raise(0);
    vectors.set_control(CONTROL_ENABLE);
    program(&vectors, 0, HERE, false);
    assert_eq!(router.taken(0).0, 0);
}

#[test]
fn reset_takes_the_routes_back_and_the_lines_are_used_again() {
    let router = Arc::new(Router::default());
    let vectors = MsixVectors::new(1, router.clone());
    vectors.set_control(CONTROL_ENABLE);
    program(&vectors, 0, HERE, false);
    vectors.reset();
    assert_eq!(router.taken(0).1, None);
    vectors.raise(0);
    vectors.set_control(CONTROL_ENABLE);
    program(&vectors, 0, THERE, false);
    assert_eq!(router.taken(0), (0, Some(THERE)));
    assert_eq!(router.lines.lock().unwrap().len(), 1);
}

#[test]
fn accesses_outside_the_table_do_nothing() {
    let vectors = MsixVectors::new(1, Arc::new(Router::default()));
    for offset in [0, 15, 16, u64::MAX - 3, u64::MAX] {
        let mut data = [0; 8];
        vectors.write_table(offset, &[0xff; 8]);
        vectors.read_table(offset, &mut data);
        vectors.read_pending(offset, &mut data);
    }
    assert!(!vectors.raise(0xffff));
    vectors.set_control(CONTROL_ENABLE);
    assert!(vectors.raise(0xffff));
}
