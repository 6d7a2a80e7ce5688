//! Requests for random bytes.

use super::*;
use crate::virtio::testing::{Machine, Piece};

const VERSION_1: u64 = 1 << 32;

#[test]
fn a_request_is_filled_over_its_pieces_and_at_most_4096_bytes() {
    let machine = Machine::new();
    let mut driver = machine.plug(1, Rng::new());
    driver.probe();
    assert!(driver.negotiate(VERSION_1));
    let mut ring = driver.ring(0, 64, false);
    driver.start();
    let (small, large) = (Piece::room(&machine, 100), Piece::room(&machine, 5000));
    let head = ring.add(&[small, large]);
    driver.kick(&mut ring);
    assert_eq!(ring.wait_used(), (head, 4096));
    assert_ne!(small.bytes(&machine), [0; 100]);
    let bytes = large.bytes(&machine);
    assert_eq!(bytes[3996..], [0; 1004]);
    // 64 zero bytes in a row where random ones should be: once in 2^512.
    assert!(bytes[..3996].chunks(64).filter(|chunk| chunk.len() == 64).all(|chunk| chunk != [0; 64]));
}
