//! Lists of buffers against a plain byte vector.

use super::*;
use crate::virtio::testing::{Dice, Machine};
use vm_memory::Bytes;

/// Three pieces of 4, 0 and 6 bytes holding 0..10.
fn ten(machine: &Machine) -> Buffers {
    let at = machine.allocate(64, 16);
    machine.memory.write_slice(&[0, 1, 2, 3], GuestAddress(at)).unwrap();
    machine.memory.write_slice(&[4, 5, 6, 7, 8, 9], GuestAddress(at + 32)).unwrap();
    let mut buffers = Buffers::new(machine.memory.clone());
    buffers.push(at, 4).unwrap();
    buffers.push(at + 16, 0).unwrap();
    buffers.push(at + 32, 6).unwrap();
    buffers
}

fn contents(buffers: &Buffers) -> Vec<u8> {
    let mut bytes = vec![0; buffers.bytes()];
    assert!(buffers.read_at(0, &mut bytes));
    bytes
}

#[test]
fn pieces_read_as_one() {
    let machine = Machine::new();
    let buffers = ten(&machine);
    assert_eq!(contents(&buffers), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    let mut two = [0; 2];
    assert!(buffers.read_at(3, &mut two));
    assert_eq!(two, [3, 4]);
    assert!(!buffers.read_at(9, &mut two));
    assert!(!buffers.read_at(usize::MAX, &mut two));
}

#[test]
fn advancing_over_a_border_leaves_the_rest() {
    let machine = Machine::new();
    let mut buffers = ten(&machine);
    buffers.advance(3);
    buffers.advance(2);
    assert_eq!(contents(&buffers), [5, 6, 7, 8, 9]);
    assert!(buffers.write_at(1, &[60]));
    assert_eq!(contents(&buffers), [5, 60, 7, 8, 9]);
    buffers.advance(100);
    assert_eq!((buffers.bytes(), buffers.pieces()), (0, 0));
}

#[test]
fn the_tail_can_be_cut_off_inside_a_piece() {
    let machine = Machine::new();
    let (mut buffers, mut tail) = (ten(&machine), Buffers::new(machine.memory.clone()));
    assert!(!buffers.move_tail(11, &mut tail));
    assert!(buffers.move_tail(7, &mut tail));
    assert_eq!((contents(&buffers), contents(&tail)), (vec![0, 1, 2], vec![3, 4, 5, 6, 7, 8, 9]));
}

#[test]
fn random_operations_agree_with_a_plain_vector() {
    let machine = Machine::new();
    let mut dice = Dice::new(7);
    let mut model: Vec<(u64, u32)> = Vec::new();
    let mut buffers = Buffers::new(machine.memory.clone());
    let base = machine.allocate(1 << 16, 16);
    for _ in 0..20_000 {
        match dice.below(4) {
            0 | 1 => {
                let (at, len) = (base + dice.below(60_000), 1 + dice.below(100) as u32);
                buffers.push(at, len).unwrap();
                model.push((at, len));
            }
            2 => {
                let mut bytes = dice.below(300);
                buffers.advance(bytes as usize);
                while let Some(first) = model.first_mut().filter(|_| bytes > 0) {
                    let step = bytes.min(u64::from(first.1));
                    (first.0, first.1, bytes) = (first.0 + step, first.1 - step as u32, bytes - step);
                    if first.1 == 0 {
                        model.remove(0);
                    }
                }
            }
            _ => {
                let pieces = (dice.below(5) as usize).min(model.len());
                buffers.drop_pieces(pieces);
                model.drain(..pieces);
            }
        }
        assert_eq!(buffers.pieces(), model.len());
        assert_eq!(buffers.bytes(), model.iter().map(|(_, len)| *len as usize).sum::<usize>());
        let host: Vec<_> = model.iter().map(|(at, _)| at - base).collect();
        let first = buffers.as_iovecs().first().map(|p| p.iov_base as u64);
        let relative: Vec<_> =
            buffers.as_iovecs().iter().map(|p| (p.iov_base as u64).wrapping_sub(first.unwrap_or(0))).collect();
        let expected: Vec<_> = host.iter().map(|at| at.wrapping_sub(host[0])).collect();
        assert_eq!(relative, expected);
    }
}
