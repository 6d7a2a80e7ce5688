//! EDGE: packet sockets (packet(7)): whole frames of one interface, past the host's firewall. They only listen.

use std::{
    io, mem,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
    time::{Duration, SystemTime},
};

use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET};
use nix::net::if_::if_nametoindex;

/// Ethernet's header in bytes.
const ETHERNET: u32 = 14;

/// What a socket is to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hear {
    /// ARP, IPv6 neighbour solicitations and advertisements, and DHCPv4: nothing else wakes the process. What the host
    /// sends is left out.
    Addresses,
    /// Everything in both directions, the first bytes of each frame. The owner of the descriptor cannot widen it.
    Everything {
        /// How many bytes.
        snaplen: u32,
        /// Room for frames that wait to be read, in bytes.
        buffer: libc::c_int,
    },
}

/// A frame that was read into the caller's buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes in the buffer.
    pub(crate) len: usize,
    /// Bytes the frame had on the wire, without a VLAN tag that was taken off.
    pub(crate) original: u32,
    /// The VLAN tag that was taken off: protocol and control information.
    pub(crate) tag: Option<(u16, u16)>,
    /// `PACKET_HOST`, `PACKET_OUTGOING`, … (packet(7)).
    pub(crate) kind: u8,
    /// Since the Unix epoch.
    pub(crate) at: Duration,
}

/// Opens a socket on an interface, ready on return; non-blocking. If the interface is deleted, so is its use.
pub(crate) fn open(interface: &str, hear: Hear) -> io::Result<OwnedFd> {
    let index = if_nametoindex(interface)?;
    // Protocol 0 hears nothing until bind(): no frame gets in before the filter.
    // SAFETY: socket takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: fd is a fresh descriptor that nobody else owns.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    match hear {
        Hear::Addresses => {
            attach(&fd, &mut addresses())?;
            set_option(&fd, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1_i32)?;
        }
        Hear::Everything { snaplen, buffer } => {
            attach(&fd, &mut only(index, snaplen))?;
            set_option(&fd, libc::SOL_SOCKET, libc::SO_LOCK_FILTER, &1_i32)?;
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &buffer)?;
            set_option(&fd, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, &1_i32)?;
        }
    }
    set_option(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
    // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
    let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index.cast_signed();
    // SAFETY: the pointer and length are of one live sockaddr_ll, which bind only reads.
    let failed = unsafe {
        libc::bind(fd.as_raw_fd(), (&raw const address).cast(), mem::size_of_val(&address) as libc::socklen_t)
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

/// Reads the next frame; what does not fit the buffer is cut off.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    #[repr(align(8))]
    struct Control([u8; 128]);
    let mut control = Control([0; 128]);
    // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
    let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is integers and pointers, for which all zeros (null) is a value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw mut from).cast();
    header.msg_namelen = mem::size_of_val(&from) as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: every pointer in the header is to a live buffer of the length given beside it; all outlive the call.
    let got = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) };
    let len = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let mut received = Received { len, original: len as u32, tag: None, kind: from.sll_pkttype, at: Duration::ZERO };
    // SAFETY: recvmsg has filled in the header; its control buffer is alive.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: not null, so CMSG_FIRSTHDR or CMSG_NXTHDR found a whole, aligned cmsghdr in the control buffer.
        let head = unsafe { *message };
        let kind = (head.cmsg_level, head.cmsg_type);
        if kind == (libc::SOL_PACKET, libc::PACKET_AUXDATA) && holds::<libc::tpacket_auxdata>(head.cmsg_len) {
            // SAFETY: the message says it holds a whole tpacket_auxdata of plain integers; it may be unaligned.
            let aux: libc::tpacket_auxdata = unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast()) };
            received.original = aux.tp_len;
            if aux.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                received.tag = Some((aux.tp_vlan_tpid, aux.tp_vlan_tci));
            }
        } else if kind == (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) && holds::<libc::timespec>(head.cmsg_len) {
            // SAFETY: the message says it holds a whole timespec of plain integers; it may be unaligned.
            let at: libc::timespec = unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast()) };
            let (seconds, nanos) = (u64::try_from(at.tv_sec), u32::try_from(at.tv_nsec));
            received.at = Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0).min(999_999_999));
        }
        // SAFETY: message is from this header's control buffer.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    if received.at == Duration::ZERO {
        received.at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    }
    Ok(received)
}

/// Frames that the kernel gave this socket, and those it had no room for, since this was asked last.
pub(crate) fn statistics(fd: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = mem::size_of_val(&statistics) as libc::socklen_t;
    // SAFETY: pointer and length are of one live value of the kind that PACKET_STATISTICS writes.
    let failed = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            (&raw mut statistics).cast(),
            &raw mut length,
        )
    };
    if failed != 0 {
        return Err(io::Error::last_os_error());
    }
    // tp_packets counts both.
    Ok((u64::from(statistics.tp_packets.saturating_sub(statistics.tp_drops)), statistics.tp_drops.into()))
}

fn holds<T>(length: usize) -> bool {
    // SAFETY: CMSG_LEN only computes.
    length >= unsafe { libc::CMSG_LEN(mem::size_of::<T>() as u32) } as usize
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// ARP; ICMPv6 types 135 and 136 right behind the IPv6 header (RFC 4861 §4.3, §4.4); UDP in one piece to 67 or 68.
fn addresses() -> Vec<libc::sock_filter> {
    let load = |size: u32, at: u32| op(BPF_LD | size | BPF_ABS, at, 0, 0);
    let equal = |value: u32, jt: u8, jf: u8| op(BPF_JMP | BPF_JEQ | BPF_K, value, jt, jf);
    vec![
        load(BPF_H, 12),
        equal(libc::ETH_P_ARP as u32, 15, 0),
        equal(libc::ETH_P_IPV6 as u32, 0, 5),
        load(BPF_B, ETHERNET + 6),
        equal(libc::IPPROTO_ICMPV6 as u32, 0, 13),
        load(BPF_B, ETHERNET + 40),
        equal(135, 10, 0),
        equal(136, 9, 10),
        equal(libc::ETH_P_IP as u32, 0, 9),
        load(BPF_B, ETHERNET + 9),
        equal(libc::IPPROTO_UDP as u32, 0, 7),
        load(BPF_H, ETHERNET + 6),
        op(BPF_JMP | BPF_JSET | BPF_K, 0x3fff, 5, 0),
        op(BPF_LDX | BPF_B | BPF_MSH, ETHERNET, 0, 0),
        op(BPF_LD | BPF_H | BPF_IND, ETHERNET + 2, 0, 0),
        equal(67, 1, 0),
        equal(68, 0, 1),
        op(BPF_RET | BPF_K, u32::MAX, 0, 0),
        op(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

/// Frames of one interface, whatever the socket is bound to later.
fn only(index: u32, snaplen: u32) -> Vec<libc::sock_filter> {
    vec![
        op(BPF_LD | libc::BPF_W | BPF_ABS, (libc::SKF_AD_OFF + libc::SKF_AD_IFINDEX).cast_unsigned(), 0, 0),
        op(BPF_JMP | BPF_JEQ | BPF_K, index, 0, 1),
        op(BPF_RET | BPF_K, snaplen, 0, 0),
        op(BPF_RET | BPF_K, 0, 0, 0),
    ]
}

fn attach(fd: &OwnedFd, program: &mut [libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn set_option<T>(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length are of one live value, which setsockopt only reads; what it points to in turn (the
    // filter's program) the caller keeps alive for the call.
    let failed = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
