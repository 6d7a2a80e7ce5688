//! EDGE: one packet socket on a bridge: whole Ethernet frames to a server's UDP port in, whole frames out.
//!
//! It hears what the host's firewall drops, for the kernel hands frames to packet sockets first; and it reaches clients
//! that have no address yet and so answer no ARP.

use std::{
    ffi::CString,
    io, mem,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    config::Mac,
    v4::frame::{Checksum, SERVER_PORT},
    v6,
};

/// Bytes a DHCP frame may have: more than any link of ours carries.
pub(super) const MAX_FRAME: usize = 10_240;

/// Bytes of frames the kernel keeps for us while we are busy: a burst of some thousand clients.
const RECEIVE_BUFFER: libc::c_int = 4 << 20;

/// What a socket hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hears {
    /// What is for a DHCPv4 server.
    Dhcp4,
    /// Router solicitations, and what is for a DHCPv6 server.
    Ipv6,
}

/// A frame in the caller's buffer.
#[derive(Clone, Copy, Debug)]
struct Received {
    len: usize,
    checksum: Checksum,
}

/// The socket. It is bound to one bridge: if that is deleted, so is its use.
#[derive(Debug)]
pub(super) struct PacketSocket {
    fd: AsyncFd<OwnedFd>,
    bridge: CString,
    /// What is sent goes past the queue discipline now.
    bypassing: AtomicBool,
}

impl PacketSocket {
    /// Opens the socket, ready to receive on return.
    pub(super) fn open(bridge: &str, hears: Hears) -> io::Result<Self> {
        let name = CString::new(bridge).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: if_nametoindex reads a NUL-terminated string, which CString is and keeps alive for the call.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        if index == 0 {
            return Err(io::Error::last_os_error());
        }
        // Protocol 0 hears nothing until bind(): no frame gets in before the filter.
        // SAFETY: socket takes no pointers.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: fd is a fresh descriptor that nobody else owns.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let protocol = match hears {
            Hears::Dhcp4 => {
                attach_filter(fd.as_raw_fd())?;
                libc::ETH_P_IP
            }
            Hears::Ipv6 => {
                attach_filter6(fd.as_raw_fd())?;
                libc::ETH_P_IPV6
            }
        };
        set_option(fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, &1_i32)?;
        // Best effort: it takes CAP_NET_ADMIN, which a smaller buffer doesn't need.
        let _ = set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &RECEIVE_BUFFER);

        // SAFETY: sockaddr_ll is plain integers, for which all zeros is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (protocol as u16).to_be();
        address.sll_ifindex = index.cast_signed();
        // SAFETY: the pointer and length are of one live sockaddr_ll, which bind only reads.
        let failed = unsafe {
            libc::bind(fd.as_raw_fd(), (&raw const address).cast(), mem::size_of_val(&address) as libc::socklen_t)
        };
        if failed != 0 {
            return Err(io::Error::last_os_error());
        }
        // Errors too: that is how the bridge's end is told.
        // SAFETY: an OwnedFd names one descriptor all its life and closes it only when dropped, which AsyncFd sees to.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE | Interest::ERROR)? };
        Ok(PacketSocket { fd, bridge: name, bypassing: AtomicBool::new(false) })
    }

    /// Waits for frames and hands over those that are there, `most` at a time. Frames with a VLAN tag are left out: no
    /// reply of ours would carry one. Cancelling it loses nothing.
    pub(super) async fn receive(
        &self,
        buffer: &mut [u8],
        most: usize,
        mut each: impl FnMut(&[u8], Checksum),
    ) -> io::Result<()> {
        let mut guard = self.fd.ready(Interest::READABLE | Interest::ERROR).await?;
        for _ in 0..most {
            match guard.try_io(|fd| receive(fd.as_raw_fd(), buffer)) {
                Ok(Ok(Some(Received { len, checksum }))) => each(&buffer[..len], checksum),
                Ok(Ok(None)) => {}
                Ok(Err(cause)) => return Err(cause),
                Err(_would_block) => break,
            }
        }
        Ok(())
    }

    /// Sends a frame on the bridge.
    ///
    /// A bridge without ports has no carrier, and then its queue discipline swallows what is sent, with no error. When
    /// the first port comes, the kernel wakes the discipline some time later, which shows as `IFF_RUNNING`
    /// (Documentation/networking/operstates.rst); a new guest's first DISCOVER may be here before that. Until then
    /// the reply goes past the discipline, and only until then, for what does is not seen by tcpdump on the bridge.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        let bypass = !self.is_running()?;
        if self.bypassing.swap(bypass, Ordering::Relaxed) != bypass {
            let value = i32::from(bypass);
            set_option(self.fd.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &value)?;
        }
        // SAFETY: pointer and length are of one live slice, which send only reads.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The bridge's own MAC, now.
    pub(super) fn mac(&self) -> io::Result<Mac> {
        let request = self.ask(libc::SIOCGIFHWADDR)?;
        // SAFETY: SIOCGIFHWADDR succeeded, so the kernel has filled in the hardware address of the union.
        let data = unsafe { request.ifr_ifru.ifru_hwaddr.sa_data };
        Ok(Mac(std::array::from_fn(|at| data[at].cast_unsigned())))
    }

    /// The kernel has noticed that the bridge has a live port.
    fn is_running(&self) -> io::Result<bool> {
        let request = self.ask(libc::SIOCGIFFLAGS)?;
        // SAFETY: SIOCGIFFLAGS succeeded, so the kernel has filled in the flags of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        Ok(i32::from(flags) & libc::IFF_RUNNING != 0)
    }

    /// One of the requests of netdevice(7) that fill in an ifreq for the bridge.
    fn ask(&self, what: libc::Ioctl) -> io::Result<libc::ifreq> {
        // SAFETY: ifreq is integers and a union of them, for which all zeros is a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(self.bridge.as_bytes()) {
            *to = from.cast_signed() as libc::c_char;
        }
        // SAFETY: the callers' requests read the name and write the union of one live ifreq.
        let failed = unsafe { libc::ioctl(self.fd.as_raw_fd(), what, &raw mut request) };
        if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(request) }
    }
}

fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<Option<Received>> {
    #[repr(align(8))]
    struct Control([u8; 64]);
    let mut control = Control([0; 64]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is integers and pointers, for which all zeros (null) is a value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len();
    // SAFETY: every pointer in the header is to a live buffer of the length given beside it; all outlive the call.
    let got = unsafe { libc::recvmsg(fd, &raw mut header, 0) };
    let len = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    let aux = auxiliary(&header);
    let status = aux.map_or(0, |aux| aux.tp_status);
    let tagged = aux.is_some_and(|aux| status & libc::TP_STATUS_VLAN_VALID != 0 && aux.tp_vlan_tci & 0xfff != 0);
    if tagged || header.msg_flags & libc::MSG_TRUNC != 0 {
        return Ok(None);
    }
    let partial = status & libc::TP_STATUS_CSUMNOTREADY != 0;
    Ok(Some(Received { len, checksum: if partial { Checksum::Partial } else { Checksum::Full } }))
}

/// What the kernel says about the frame beside it (packet(7), PACKET_AUXDATA).
fn auxiliary(header: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: recvmsg has filled in the header; its control buffer is alive in the caller.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so CMSG_FIRSTHDR or CMSG_NXTHDR found a whole, aligned cmsghdr in the control buffer.
        let (level, kind, len) = unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        // SAFETY: CMSG_LEN only computes.
        let needed = unsafe { libc::CMSG_LEN(mem::size_of::<libc::tpacket_auxdata>() as u32) } as usize;
        if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA && len >= needed {
            // SAFETY: the message says it holds a whole tpacket_auxdata of plain integers; it may be unaligned.
            return Some(unsafe { ptr::read_unaligned(libc::CMSG_DATA(message).cast()) });
        }
        // SAFETY: message is from this header's control buffer.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// IPv4, UDP, in one piece, to port 67: the kernel wakes us for nothing else.
fn attach_filter(fd: RawFd) -> io::Result<()> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX, BPF_MSH, BPF_RET};
    const IP: u32 = 14;
    let load = |size: u32, at: u32| op(BPF_LD | size | BPF_ABS, at, 0, 0);
    let drop_unless = |value: u32, to_drop: u8| op(BPF_JMP | BPF_JEQ | BPF_K, value, 0, to_drop);
    let mut program = [
        load(BPF_H, 12),
        drop_unless(libc::ETH_P_IP as u32, 8),
        load(BPF_B, IP + 9),
        drop_unless(libc::IPPROTO_UDP as u32, 6),
        load(BPF_H, IP + 6),
        op(BPF_JMP | BPF_JSET | BPF_K, 0x3fff, 4, 0),
        op(BPF_LDX | BPF_B | BPF_MSH, IP, 0, 0),
        op(BPF_LD | BPF_H | BPF_IND, IP + 2, 0, 0),
        drop_unless(SERVER_PORT.into(), 1),
        op(BPF_RET | BPF_K, u32::MAX, 0, 0),
        op(BPF_RET | BPF_K, 0, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// IPv6 with no header between it and either UDP to port 547 or a router solicitation. (What has one between is nothing
/// that a client sends.)
fn attach_filter6(fd: RawFd) -> io::Result<()> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    const IP: u32 = 14;
    const BODY: u32 = IP + 40;
    const ROUTER_SOLICITATION: u32 = 133;
    let load = |size: u32, at: u32| op(BPF_LD | size | BPF_ABS, at, 0, 0);
    let is = |value: u32, then: u8, or_else: u8| op(BPF_JMP | BPF_JEQ | BPF_K, value, then, or_else);
    let mut program = [
        load(BPF_H, 12),
        is(libc::ETH_P_IPV6 as u32, 0, 7),
        load(BPF_B, IP + 6),
        is(libc::IPPROTO_UDP as u32, 0, 2),
        load(BPF_H, BODY + 2),
        is(v6::frame::SERVER_PORT.into(), 4, 3),
        is(libc::IPPROTO_ICMPV6 as u32, 0, 2),
        load(BPF_B, BODY),
        is(ROUTER_SOLICITATION, 1, 0),
        op(BPF_RET | BPF_K, 0, 0, 0),
        op(BPF_RET | BPF_K, u32::MAX, 0, 0),
    ];
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

fn op(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn set_option<T>(fd: RawFd, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: pointer and length are of one live value, which setsockopt only reads; what it points to in turn (the
    // filter's program) the caller keeps alive for the call.
    let failed = unsafe {
        libc::setsockopt(fd, level, name, ptr::from_ref(value).cast(), mem::size_of::<T>() as libc::socklen_t)
    };
    if failed != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
