//! The NIC over real taps, each test in a network namespace of its own. Needs root, /dev/net/tun and `ip`; without them
//! the tests fail.

use std::fs::OpenOptions;
use std::process::Command;

use super::*;

nix::ioctl_write_ptr_bad!(set_iff, libc::TUNSETIFF, libc::ifreq);

/// Runs `body` on a thread in a fresh network namespace; traffic never leaves it.
fn in_namespace(body: impl FnOnce() + Send + 'static) {
    let thread = std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace (are we root?)");
        body();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Opens `queues` queues of a new tap.
fn open(name: &str, flags: libc::c_int, queues: usize) -> Vec<OwnedFd> {
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: (libc::IFF_TAP | flags) as libc::c_short },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let queue = |_| {
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        // SAFETY: TUNSETIFF reads an ifreq through the pointer, which points to a live one.
        unsafe { set_iff(file.as_raw_fd(), &request) }.unwrap();
        OwnedFd::from(file)
    };
    (0..queues).map(queue).collect()
}

fn ip(words: &str) {
    assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
}

const FLAGS: libc::c_int = libc::IFF_NO_PI | libc::IFF_VNET_HDR;

/// "Who has 10.9.0.1", asked by 10.9.0.2, with an empty virtio header.
fn arp_request() -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend([0xff; 6]);
    frame.extend(MAC);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame.extend(MAC);
    frame.extend([10, 9, 0, 2, 0, 0, 0, 0, 0, 0, 10, 9, 0, 1]);
    frame
}

/// Sends an ARP request and waits for the host's reply among whatever else it sends.
fn host_answers(guest: &mut Guest<'_>, posted: &[(u16, Piece)]) {
    guest.transmit.add(&[Piece::holding(guest.driver.machine, &arp_request())]);
    guest.driver.kick(&mut guest.transmit);
    loop {
        let frame = guest.receive(posted);
        let reply = frame[HEADER + 12..].starts_with(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
        if reply && frame[HEADER + 28..].starts_with(&[10, 9, 0, 1]) {
            assert_eq!(frame[HEADER..HEADER + 6], MAC);
            return;
        }
    }
}

#[test]
fn the_hosts_stack_answers_through_a_real_tap_also_after_the_link_was_down() {
    in_namespace(|| {
        let machine = Machine::new();
        let taps = open("tap0", FLAGS, 1);
        ip("addr add 10.9.0.1/24 dev tap0");
        ip("link set tap0 up");
        let nic = Net::new(taps, MAC, 1500).unwrap();
        let mut guest = Guest::new(&machine, nic, MRG_RXBUF | EVENT_IDX | 0b11 | 1 << 7 | 1 << 8, 128);
        let posted = guest.post(100, 2048);
        host_answers(&mut guest, &posted);
        // While the link is down the guest's frames are dropped (EIO) and finished.
        ip("link set tap0 down");
        let head = guest.transmit.add(&[Piece::holding(&machine, &arp_request())]);
        guest.driver.kick(&mut guest.transmit);
        while guest.transmit.wait_used().0 != head {}
        ip("link set tap0 up");
        host_answers(&mut guest, &posted);
        let mut guest = Guest::bind(guest.driver, 0, 128);
        let posted = guest.post(100, 2048);
        host_answers(&mut guest, &posted);
    });
}

#[test]
fn a_tap_that_is_deleted_stops_frames_but_nothing_else() {
    in_namespace(|| {
        let machine = Machine::new();
        let taps = open("tap0", FLAGS, 1);
        ip("link set tap0 up");
        let nic = Net::new(taps, MAC, 1500).unwrap();
        let mut guest = Guest::new(&machine, nic, MRG_RXBUF, 16);
        guest.post(8, 2048);
        ip("link del tap0");
        for _ in 0..3 {
            let head = guest.transmit.add(&[Piece::holding(&machine, &arp_request())]);
            guest.driver.kick(&mut guest.transmit);
            while guest.transmit.wait_used().0 != head {}
        }
        assert_eq!(guest.driver.status() & 0x40, 0);
        guest.driver.reset();
    });
}

#[test]
fn with_several_queues_the_driver_decides_how_many_are_used() {
    in_namespace(|| {
        let machine = Machine::new();
        let taps = open("tap0", FLAGS | libc::IFF_MULTI_QUEUE, 2);
        ip("addr add 10.9.0.1/24 dev tap0");
        ip("link set tap0 up");
        let second = taps[1].try_clone().unwrap();
        let mut driver = machine.plug(1, Net::new(taps, MAC, 1500).unwrap());
        driver.probe();
        assert!(driver.negotiate(VERSION_1 | MRG_RXBUF | MQ | CTRL_VQ));
        let (receive, transmit) = (driver.ring(0, 64, false), driver.ring(1, 64, false));
        let (_receive1, mut transmit1) = (driver.ring(2, 64, false), driver.ring(3, 64, false));
        let mut control = driver.ring(4, 16, false);
        driver.start();
        let mut guest = Guest { driver, receive, transmit };
        let posted = guest.post(32, 2048);
        host_answers(&mut guest, &posted);

        let mut command = |driver: &Driver<'_>, bytes: &[u8]| {
            let answer = Piece::room(&machine, 1);
            control.add(&[Piece::holding(&machine, bytes), answer]);
            driver.kick(&mut control);
            control.wait_used();
            answer.bytes(&machine)[0]
        };
        assert!(!attached(&second), "only one queue at first");
        assert_eq!(command(&guest.driver, &[4, 0, 2, 0]), 0);
        assert!(attached(&second));
        assert_eq!(command(&guest.driver, &[4, 0, 3, 0]), 1, "there are two");
        assert_eq!(command(&guest.driver, &[0, 0, 1]), 1, "a command we don't have");
        // The second pair sends; the answer may come by either queue, so only the sending is looked at.
        let head = transmit1.add(&[Piece::holding(&machine, &arp_request())]);
        guest.driver.kick(&mut transmit1);
        assert_eq!(transmit1.wait_used().0, head);
        assert_eq!(command(&guest.driver, &[4, 0, 1, 0]), 0);
        assert!(!attached(&second));
        host_answers(&mut guest, &posted);
        // A reset takes the device back to one pair.
        assert_eq!(command(&guest.driver, &[4, 0, 2, 0]), 0);
        let mut guest = Guest::bind(guest.driver, MRG_RXBUF, 64);
        assert!(!attached(&second));
        let posted = guest.post(32, 2048);
        host_answers(&mut guest, &posted);
    });
}

/// Whether a queue takes part in its tap.
fn attached(queue: &OwnedFd) -> bool {
    nix::ioctl_read_bad!(get_iff, libc::TUNGETIFF, libc::ifreq);
    let mut request =
        libc::ifreq { ifr_name: [0; libc::IFNAMSIZ], ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 } };
    // SAFETY: TUNGETIFF writes an ifreq through the pointer, which points to a live one.
    unsafe { get_iff(queue.as_raw_fd(), &mut request) }.unwrap();
    // SAFETY: TUNGETIFF filled in the flags member of the union.
    libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_DETACH_QUEUE == 0
}

#[test]
fn taps_opened_in_another_way_are_refused_by_name() {
    in_namespace(|| {
        let refused = |taps| Net::new(taps, MAC, 1500).map(drop).unwrap_err().to_string();
        let error = refused(open("plain0", libc::IFF_NO_PI, 1));
        assert!(error.contains("plain0") && error.contains("IFF_VNET_HDR"), "{error}");
        let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun").unwrap();
        assert!(refused(vec![file.into()]).contains("TUNSETIFF"));
    });
}

/// An IPv4 header checksum, or the sum of a UDP pseudo header (RFC 1071), not complemented.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)])));
    let total: u32 = words.sum();
    let once = (total & 0xffff) + (total >> 16);
    ((once & 0xffff) + (once >> 16)) as u16
}

/// A UDP packet from 10.9.0.2 to 10.9.0.1 port 4000 in one piece, to be cut into datagrams of `segment` bytes (virtio
/// 1.2 §5.1.6: GSO_UDP_L4, checksum to be finished).
fn large_udp(host: [u8; 6], payload: &[u8], segment: u16) -> Vec<u8> {
    let udp_len = (8 + payload.len()) as u16;
    let mut frame = vec![1, 5];
    for field in [14 + 20 + 8, segment, 14 + 20, 6, 0] {
        frame.extend(field.to_le_bytes());
    }
    frame.extend(host);
    frame.extend(MAC);
    frame.extend([0x08, 0x00]);
    let mut ip = vec![0x45, 0];
    ip.extend((20 + udp_len).to_be_bytes());
    ip.extend([0, 1, 0, 0, 64, 17, 0, 0, 10, 9, 0, 2, 10, 9, 0, 1]);
    let checksum = !sum(&ip);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    let pseudo = [&ip[12..20], &[0, 17], &udp_len.to_be_bytes()].concat();
    frame.extend(&ip);
    for field in [5000, 4000, udp_len, sum(&pseudo)] {
        frame.extend(field.to_be_bytes());
    }
    frame.extend(payload);
    frame
}

/// The MAC of an interface.
fn mac_of(interface: &str) -> [u8; 6] {
    let output = Command::new("ip").args(["-br", "link", "show", interface]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let bytes: Vec<u8> =
        text.split_whitespace().nth(2).unwrap().split(':').map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

#[test]
fn large_udp_packets_pass_whole_both_ways_until_the_guest_turns_that_off() {
    const USO: u64 = 7 << 54;
    in_namespace(|| {
        let machine = Machine::new();
        let taps = open("tap0", FLAGS, 1);
        ip("addr add 10.9.0.1/24 dev tap0");
        ip("link set tap0 up");
        ip("neigh add 10.9.0.2 lladdr 52:54:00:01:02:03 dev tap0");
        let host = mac_of("tap0");
        let mut driver = machine.plug(1, Net::new(taps, MAC, 1500).unwrap());
        driver.probe();
        assert_eq!(driver.offered() & USO, USO, "the kernel is older than 6.2");
        assert!(driver.negotiate(VERSION_1 | MRG_RXBUF | CTRL_VQ | USO | 0b111));
        let (receive, transmit) = (driver.ring(0, 128, false), driver.ring(1, 64, false));
        let mut control = driver.ring(2, 16, false);
        driver.start();
        let mut guest = Guest { driver, receive, transmit };
        let posted = guest.post(100, 2048);

        let socket = std::net::UdpSocket::bind("10.9.0.1:4000").unwrap();
        socket.set_read_timeout(Some(PROMPTLY)).unwrap();
        let payload: Vec<u8> = (0..3500).map(|i| (i % 251) as u8).collect();
        guest.transmit.add(&[Piece::holding(&machine, &large_udp(host, &payload, 1000))]);
        guest.driver.kick(&mut guest.transmit);
        let mut arrived: Vec<u8> = Vec::new();
        for expected in [1000, 1000, 1000, 500] {
            let mut datagram = [0; 2000];
            let len = socket.recv(&mut datagram).unwrap();
            assert_eq!(len, expected);
            arrived.extend(&datagram[..len]);
        }
        assert_eq!(arrived, payload);

        // The host sends one large packet; what else it says on its own is not UDP to port 5000.
        let send_large = || {
            let segment: libc::c_int = 1000;
            // SAFETY: UDP_SEGMENT takes an int, and gets a pointer to a live one with its size.
            let set = unsafe {
                libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const segment).cast(), 4)
            };
            assert_eq!(set, 0);
            assert_eq!(socket.send_to(&payload, "10.9.0.2:5000").unwrap(), payload.len());
        };
        let next_datagram = |guest: &mut Guest<'_>| loop {
            let frame = guest.receive(&posted);
            if frame[HEADER + 12..].starts_with(&[8, 0, 0x45]) && frame[HEADER + 23] == 17 {
                return (frame[1], frame.len() - HEADER - 42);
            }
        };
        send_large();
        assert_eq!(next_datagram(&mut guest), (5, 3500), "whole, and said to be large UDP");
        let answer = Piece::room(&machine, 1);
        control.add(&[Piece::holding(&machine, &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0]), answer]);
        guest.driver.kick(&mut control);
        control.wait_used();
        assert_eq!(answer.bytes(&machine), [0]);
        send_large();
        assert_eq!([(); 4].map(|()| next_datagram(&mut guest)), [(0, 1000), (0, 1000), (0, 1000), (0, 500)]);
    });
}
