//! EDGE: one frame taken in by a link of the host, as if it had come over the wire.
//!
//! XDP's test run with live frames (Linux 5.18; kernel documentation, bpf/bpf_prog_run) hands a frame to the network stack
//! as the driver of a link does, after a program of ours has said "pass". Nothing of the link changes and nothing stays:
//! the program has no name and goes with its descriptor. It takes CAP_BPF and CAP_NET_ADMIN. Any other way in needs a
//! device and a filter of its own, which somebody would have to tidy up.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// `BPF_PROG_LOAD`, `BPF_PROG_TEST_RUN` (linux/bpf.h).
const LOAD: libc::c_int = 5;
const TEST_RUN: libc::c_int = 10;

/// `BPF_PROG_TYPE_XDP`.
const XDP: u32 = 6;

/// `BPF_F_TEST_XDP_LIVE_FRAMES`.
const LIVE_FRAMES: u32 = 1 << 1;

/// `r0 = XDP_PASS; exit`, as `struct bpf_insn`: code, registers, offset, immediate.
static PASS: [Instruction; 2] = [Instruction(0xb7, 0, 0, 2), Instruction(0x95, 0, 0, 0)];

#[repr(C)]
struct Instruction(u8, u8, i16, i32);

/// The part of `union bpf_attr` that loading takes; the kernel has the rest for zeroes.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
}

/// The same for a test run.
#[repr(C)]
#[derive(Default)]
struct Run {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Default)]
struct Context {
    data: u32,
    data_end: u32,
    data_meta: u32,
    ingress_ifindex: u32,
    rx_queue_index: u32,
    egress_ifindex: u32,
}

/// Has the link with this index, of this process's network namespace, take in an Ethernet frame.
pub(super) fn take_in(link: u32, frame: &[u8]) -> io::Result<()> {
    let license = c"Apache-2.0";
    let load = Load {
        kind: XDP,
        count: PASS.len() as u32,
        instructions: (&raw const PASS) as u64,
        license: license.as_ptr() as u64,
    };
    // SAFETY: the kernel reads `load`, the instructions and the license, which all outlive the call, and returns a new
    // descriptor or an error.
    let program = unsafe { bpf(LOAD, (&raw const load).cast(), size_of::<Load>()) }?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else has its number.
    let program = unsafe { OwnedFd::from_raw_fd(program) };
    let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
    let context = Context { data_end: length, ingress_ifindex: link, ..Context::default() };
    let run = Run {
        program: program.as_raw_fd().cast_unsigned(),
        data_size_in: length,
        data_in: frame.as_ptr() as u64,
        repeat: 1,
        context_size_in: size_of::<Context>() as u32,
        context_in: (&raw const context) as u64,
        flags: LIVE_FRAMES,
        ..Run::default()
    };
    // SAFETY: the kernel reads `run`, the context and as many bytes of the frame as the frame has; it writes to `run` only,
    // which is this function's alone, and to no other of the addresses, as the sizes for output are zero.
    unsafe { bpf(TEST_RUN, (&raw const run).cast(), size_of::<Run>()) }.map(drop)
}

/// bpf(2).
///
/// # Safety
/// `attributes` points to as many bytes as `size`, laid out as the command wants them, with addresses that are good for
/// as long as the call lasts.
unsafe fn bpf(command: libc::c_int, attributes: *const libc::c_void, size: usize) -> io::Result<i32> {
    // SAFETY: what the caller promises.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    if result < 0 { Err(io::Error::last_os_error()) } else { i32::try_from(result).map_err(io::Error::other) }
}
