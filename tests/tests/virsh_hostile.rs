//! Clients of libvirt's protocol that mean ill, or are broken: others notice nothing, and nothing is left of them.

use std::{
    fs,
    io::{ErrorKind, Write},
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tests::{
    front_door::{FrontDoor, READ_ONLY, SOCKET},
    wait::{self, PATIENCE},
    wire::{CALL, CALL_WITH_FDS, HEAD, REMOTE, Wire, frame, procedure, string},
};

/// Memory that one client may cost at most, in KiB: one frame of the greatest length, and as much again.
const MOST: u64 = 96 << 10;

fn client(door: &FrontDoor) -> Result<Wire> {
    Wire::open(door.connect(Path::new(SOCKET))?, PATIENCE * 3, "qemu:///system")
}

/// Somebody who was there before, and somebody who comes now, are served.
fn others_are_served(door: &FrontDoor, before: &mut Wire) -> Result<()> {
    let listed = before.call(procedure::CONNECT_LIST_ALL_NETWORKS, &[0, 0, 0, 1, 0, 0, 0, 0])?;
    assert_eq!((listed.status, listed.word(0)?, &*listed.string(4)?), (0, 1, "default"));
    assert!(door.host().check("virsh", &["net-list", "--all"])?.contains(" default   inactive   no "));
    Ok(())
}

/// How many descriptors it has open.
fn descriptors(door: &FrontDoor) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{}/fd", door.pid()?))?.count())
}

fn descriptors_come_to(door: &FrontDoor, wanted: usize) -> Result<()> {
    wait::until_true("descriptors are closed", PATIENCE, || Ok(descriptors(door)? <= wanted))
}

#[test]
fn a_thousand_connections_leave_room_for_one_more() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most.min(8192), most)?;
    let mut door = FrontDoor::new("thousand")?;
    let mut before = client(&door)?;
    others_are_served(&door, &mut before)?;
    let (open, resident) = (descriptors(&door)?, door.resident()?);
    let mut crowd = Vec::new();
    for _ in 0..1000 {
        crowd.push(client(&door)?);
    }
    others_are_served(&door, &mut before)?;
    println!("VmRSS {resident} KiB before, {} KiB with 1,000 connections", door.resident()?);
    // Each of them is a client like any other.
    for wire in crowd.iter_mut().step_by(97) {
        assert_eq!(wire.call(procedure::CONNECT_GET_HOSTNAME, &[])?.status, 0);
    }
    drop(crowd);
    descriptors_come_to(&door, open)?;
    others_are_served(&door, &mut before)?;
    door.finish()
}

#[test]
fn a_hundred_idle_connections_cost_little() -> Result<()> {
    let mut door = FrontDoor::new("idle")?;
    let crowd = (0..100).map(|_| client(&door)).collect::<Result<Vec<_>>>()?;
    let resident = door.resident()?;
    println!("VmRSS with 100 idle connections: {resident} KiB");
    // The bench says how much it is; of a debug build this is a bound with room.
    assert!(resident < 32 << 10, "{resident} KiB");
    drop(crowd);
    door.finish()
}

#[test]
fn a_client_that_never_reads_is_not_waited_for() -> Result<()> {
    let mut door = FrontDoor::new("deaf")?;
    let mut before = client(&door)?;
    let resident = door.resident()?;
    let mut deaf = client(&door)?;
    deaf.stream.set_nonblocking(true)?;
    // Calls with long answers, until no more are taken.
    let call = frame(REMOTE, procedure::CONNECT_GET_CAPABILITIES, CALL, 7, &[]);
    let (mut taken, mut idle) = (0, 0);
    while idle < 20 && taken < 64 << 20 {
        match deaf.stream.write(&call.repeat(256)) {
            Ok(0) => break,
            Ok(some) => (taken, idle) = (taken + some, 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                idle += 1;
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => break,
            Err(error) => return Err(error.into()),
        }
    }
    ensure!(taken < 64 << 20, "{taken} bytes of calls were taken though no answer was read");
    others_are_served(&door, &mut before)?;
    let after = door.resident()?;
    assert!(after < resident + MOST, "VmRSS was {resident} KiB and is {after} KiB");
    drop(deaf);
    others_are_served(&door, &mut before)?;
    door.finish()
}

#[test]
fn one_that_hears_of_everything_and_never_reads_holds_up_nobody() -> Result<()> {
    let mut door = FrontDoor::new("heedless")?;
    let mut before = client(&door)?;
    let mut heedless = client(&door)?;
    let registered = heedless.call(procedure::NETWORK_EVENT_REGISTER, &[0; 8])?;
    assert_eq!(registered.status, 0);
    let xml =
        "<network><name>often</name><uuid>11111111-2222-4333-8444-000000000041</uuid><bridge name='vbr41'/></network>";
    for _ in 0..200 {
        assert_eq!(before.call(procedure::NETWORK_DEFINE_XML, &string(xml))?.status, 0);
    }
    // It hears of all that it was told in the end, in order.
    for _ in 0..200 {
        let event = heedless.receive()?.context("an event")?;
        assert_eq!((event.procedure, event.kind, &*event.string(4)?), (procedure::NETWORK_EVENT_LIFECYCLE, 2, "often"));
    }
    door.host().check("virsh", &["net-undefine", "often"])?;
    others_are_served(&door, &mut before)?;
    door.finish()
}

#[test]
fn a_frame_may_be_long_and_no_longer() -> Result<()> {
    let mut door = FrontDoor::new("long")?;
    let mut before = client(&door)?;
    let resident = door.resident()?;
    // The protocol's longest frame: all of it is taken and answered, with an error.
    let mut long = client(&door)?;
    let longest = (32 << 20) + 4 - HEAD;
    let name = longest - 4;
    let payload = [&u32::try_from(name)?.to_be_bytes()[..], &vec![b'x'; name]].concat();
    let answer = long.call(procedure::NETWORK_LOOKUP_BY_NAME, &payload)?;
    println!("the longest frame is answered by {:?}", answer.error()?);
    assert_eq!(long.call(procedure::CONNECT_GET_HOSTNAME, &[])?.status, 0, "the connection goes on");
    // One byte more, and all a length can say: nobody waits for it to come.
    for length in [(32_u32 << 20) + 5, u32::MAX, 27, 0] {
        let mut longer = client(&door)?;
        let mut bytes = frame(REMOTE, procedure::NETWORK_LOOKUP_BY_NAME, CALL, 9, &[]);
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        longer.stream.write_all(&bytes)?;
        assert_eq!(longer.receive()?, None, "a frame of {length} bytes: the connection is ended");
    }
    // A length that is promised and does not come costs nothing, not even room.
    let room = door.memory("VmSize")?;
    let mut promised = (0..20).map(|_| client(&door)).collect::<Result<Vec<_>>>()?;
    for wire in &mut promised {
        let mut bytes = frame(REMOTE, procedure::NETWORK_LOOKUP_BY_NAME, CALL, 9, &[]);
        bytes[..4].copy_from_slice(&(4_u32 << 20).to_be_bytes());
        wire.stream.write_all(&bytes)?;
    }
    others_are_served(&door, &mut before)?;
    let (after, taken) = (door.resident()?, door.memory("VmSize")?);
    assert!(after < resident + MOST, "VmRSS was {resident} KiB and is {after} KiB");
    assert!(taken < room + (32 << 10), "VmSize was {room} KiB and is {taken} KiB");
    door.finish()
}

#[test]
fn lengths_and_counts_in_arguments_are_not_believed() -> Result<()> {
    let mut door = FrontDoor::new("counts")?;
    let mut before = client(&door)?;
    let peak = door.memory("VmPeak")?;
    let mut wire = client(&door)?;
    let most = u32::MAX.to_be_bytes();
    let uuid = [7; 16];
    let calls: [(u32, Vec<u8>); 8] = [
        (procedure::NETWORK_LOOKUP_BY_NAME, most.to_vec()),
        (procedure::NETWORK_LOOKUP_BY_NAME, [&most[..], b"abcd"].concat()),
        (procedure::NETWORK_DEFINE_XML, (4_194_305_u32).to_be_bytes().to_vec()),
        (procedure::NETWORK_GET_XML_DESC, [&most[..], &uuid].concat()),
        (procedure::NETWORK_GET_XML_DESC, Vec::new()),
        (procedure::CONNECT_LIST_ALL_NETWORKS, most.to_vec()),
        (procedure::NETWORK_UPDATE, [&string("x")[..], &uuid, &[0xff; 12], &most].concat()),
        (procedure::NETWORK_GET_DHCP_LEASES, [&string("x")[..], &uuid, &[0, 0, 0, 1], &most].concat()),
    ];
    for (procedure, payload) in &calls {
        let (code, message) = wire.call(*procedure, payload)?.error()?;
        assert!(code != 0 && !message.is_empty(), "procedure {procedure}: {code} {message}");
    }
    // A list may be asked for with room for more than there can be, or less than nothing.
    for names in [u32::MAX, 0x7fff_ffff, 0x8000_0000] {
        let answer = wire.call(procedure::CONNECT_LIST_DEFINED_NETWORKS, &names.to_be_bytes())?;
        assert!(answer.payload.len() < 4096, "{answer:?}");
    }
    for unknown in [0, 9999, u32::MAX] {
        let (code, message) = wire.call(unknown, &[])?.error()?;
        assert!(code == 39 && message.starts_with("unknown procedure"), "procedure {unknown}: {code} {message}");
    }
    assert_eq!(wire.call(procedure::CONNECT_GET_HOSTNAME, &[])?.status, 0, "the connection goes on");
    let after = door.memory("VmPeak")?;
    assert!(after < peak + (64 << 10), "VmPeak was {peak} KiB and is {after} KiB");
    others_are_served(&door, &mut before)?;
    door.finish()
}

#[test]
fn descriptors_that_nobody_asked_for_are_closed() -> Result<()> {
    let mut door = FrontDoor::new("descriptors")?;
    let mut before = client(&door)?;
    let open = descriptors(&door)?;
    let file = fs::File::open("/dev/null")?;
    let ten = [file.as_fd(); 10];
    let hostname = frame(REMOTE, procedure::CONNECT_GET_HOSTNAME, CALL, 5, &[]);
    for _ in 0..50 {
        // With a call that has none.
        let mut wire = client(&door)?;
        wire.send_with(&hostname, &ten)?;
        while wire.receive()?.is_some_and(|frame| frame.kind != 1) {}
    }
    for announced in [0_u32, 1, 3, 33, u32::MAX] {
        // With a call that announces so many, and with fewer than it announces.
        let mut wire = client(&door)?;
        let with = frame(REMOTE, procedure::CONNECT_GET_HOSTNAME, CALL_WITH_FDS, 6, &announced.to_be_bytes());
        wire.stream.write_all(&with)?;
        for _ in 0..announced.min(2) {
            let _ = wire.send_with(&[0], &ten[..1]);
        }
        wire.stream.shutdown(std::net::Shutdown::Write)?;
        while wire.receive()?.is_some() {}
    }
    descriptors_come_to(&door, open)?;
    others_are_served(&door, &mut before)?;
    door.finish()
}

/// Numbers that look random and are the same in every run (xorshift64*).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: u64) -> usize {
        usize::try_from((self.roll() >> 16) % most).unwrap_or_default()
    }

    fn bytes(&mut self, most: u64) -> Vec<u8> {
        (0..self.below(most)).map(|_| if self.below(3) == 0 { self.below(256) as u8 } else { 0 }).collect()
    }
}

#[test]
fn random_frames_do_no_harm() -> Result<()> {
    let mut door = FrontDoor::new("random")?;
    let mut before = client(&door)?;
    let (open, resident) = (descriptors(&door)?, door.resident()?);
    let mut dice = Dice(0x005e_ed0f_11b7);
    for round in 0..400 {
        let mut wire = client(&door)?;
        wire.stream.set_nonblocking(true)?;
        for _ in 0..50 {
            let procedure = u32::try_from(dice.below(460))?;
            let payload = match dice.below(4) {
                0 => Vec::new(),
                1 => [&string("default")[..], &dice.bytes(64)].concat(),
                _ => dice.bytes(300),
            };
            let mut bytes =
                frame(REMOTE, procedure, if dice.below(60) == 0 { dice.below(9) as u32 } else { CALL }, 1, &payload);
            if dice.below(60) == 0 {
                let at = dice.below(bytes.len().min(HEAD) as u64);
                bytes[at] ^= 1 << dice.below(8);
            }
            bytes.truncate(if dice.below(100) == 0 { dice.below(bytes.len() as u64) } else { bytes.len() });
            // It may have been hung up on, or not be read from any more.
            if wire.stream.write_all(&bytes).is_err() {
                break;
            }
        }
        if round % 40 == 0 {
            others_are_served(&door, &mut before)?;
        }
    }
    // By now it keeps some connections to netd, and hears of events there.
    descriptors_come_to(&door, open + 8)?;
    let after = door.resident()?;
    assert!(after < resident + MOST, "VmRSS was {resident} KiB and is {after} KiB");
    others_are_served(&door, &mut before)?;
    door.finish()
}

#[test]
fn who_may_only_look_changes_nothing_whatever_it_sends() -> Result<()> {
    let mut door = FrontDoor::new("looking")?;
    let mut looking = Wire::open(door.connect(Path::new(READ_ONLY))?, PATIENCE, "qemu:///system")?;
    let xml = "<network><name>x</name></network>";
    let (code, message) = looking.call(procedure::NETWORK_DEFINE_XML, &string(xml))?.error()?;
    assert_eq!(code, 29, "{message}");
    let listed = looking.call(procedure::CONNECT_LIST_ALL_NETWORKS, &[0, 0, 0, 1, 0, 0, 0, 0])?;
    assert_eq!((listed.status, listed.word(0)?), (0, 1));
    door.finish()
}
