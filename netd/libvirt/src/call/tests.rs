//! Calls, as they come and as nobody should make them, answered without a netd: all that needs none is answered, and the
//! rest says where netd was looked for.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    path::Path,
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;
use crate::frame::{Frames, HEAD};

/// Notes the greatest piece of memory that a thread asks for.
struct Noting;

thread_local! {
    static GREATEST: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator.
unsafe impl GlobalAlloc for Noting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        GREATEST.with(|greatest| greatest.set(greatest.get().max(layout.size())));
        // SAFETY: as the caller promised us.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: it came from `alloc` above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Noting = Noting;

fn front() -> Front {
    Front {
        netd: Rc::new(Netd::new(Path::new("/nonexistent/netd.sock"), Duration::ZERO)),
        events: Rc::default(),
        host: host::Recent::default(),
    }
}

fn here<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, future)
}

fn header(procedure: i32) -> Header {
    Header { program: REMOTE, version: VERSION, procedure, kind: Kind::Call, serial: 7, status: Status::Ok }
}

/// The payload of a reply, or the code and the message of an error.
async fn said(front: &Front, session: &Rc<Session>, header: Header, args: &[u8]) -> Result<Vec<u8>, (i32, String)> {
    let frame = Frame::<()> { header, payload: Payload::Whole(args.to_vec()), fds: Vec::new() };
    let bytes = reply(front, session, frame).await;
    let mut frames = Frames::<()>::new(1 << 20);
    frames.push(&bytes, Vec::new()).unwrap();
    let answer = frames.next().unwrap();
    let Payload::Whole(payload) = answer.payload else { panic!("a long answer") };
    assert_eq!((answer.header.kind, answer.header.serial), (Kind::Reply, 7));
    match answer.header.status {
        Status::Ok => Ok(payload),
        _ => {
            let mut reader = Reader::new(&payload);
            let (code, _domain) = (reader.i32().unwrap(), reader.i32().unwrap());
            let message = reader.optional(Reader::string).unwrap().unwrap();
            Err((code, message.to_owned()))
        }
    }
}

async fn open(front: &Front, uri: &str, flags: u32) -> (Rc<Session>, Result<Vec<u8>, (i32, String)>) {
    let session = Rc::new(Session::new(false));
    let mut args = Writer::default();
    args.optional_string(Some(uri)).u32(flags);
    let opened = said(front, &session, header(1), &args.finish()).await;
    (session, opened)
}

#[test]
fn a_connection_is_opened_once_before_anything_is_asked() {
    here(async {
        let front = front();
        let session = Rc::new(Session::new(false));
        let words = |number| 0u32.to_be_bytes().into_iter().chain(u32::to_be_bytes(number)).collect::<Vec<u8>>();
        assert_eq!(said(&front, &session, header(66), &[]).await.unwrap(), [0, 0, 0, 1, 0, 0, 0, 0]);
        let early = said(&front, &session, header(110), &[]).await.unwrap_err();
        assert_eq!(early, (1, "internal error: connection not open".into()));
        assert_eq!(said(&front, &session, header(1), &words(0)).await, Ok(Vec::new()));
        assert_eq!(said(&front, &session, header(1), &words(0)).await.unwrap_err().0, 1);
        assert_eq!(said(&front, &session, header(110), &[]).await.unwrap()[4..18], *b"qemu:///system");
        assert_eq!(said(&front, &session, header(2), &[]).await, Ok(Vec::new()));
        assert_eq!(said(&front, &session, header(110), &[]).await.unwrap_err().0, 1);
    });
}

#[test]
fn only_what_is_served_can_be_opened() {
    here(async {
        let front = front();
        for uri in ["", "qemu:///system", "network:///system"] {
            assert_eq!(open(&front, uri, 0).await.1, Ok(Vec::new()), "{uri}");
        }
        for uri in ["qemu:///session", "test:///default", "lxc:///"] {
            let refused = (5, format!("no connection driver available for {uri}"));
            assert_eq!(open(&front, uri, 0).await.1, Err(refused));
        }
        assert_eq!(open(&front, "", 4).await.1.unwrap_err().0, 8, "a flag that is not known");
    });
}

#[test]
fn who_only_looks_changes_nothing() {
    here(async {
        let front = front();
        let (session, _) = open(&front, "", 1).await;
        for procedure in Procedure::ALL {
            let Access::Change(function) = procedure.access() else { continue };
            let refused = said(&front, &session, header(*procedure as i32), &[]).await.unwrap_err();
            assert_eq!(refused, (29, format!("operation forbidden: read only access prevents {function}")));
        }
    });
}

#[test]
fn flags_that_are_not_known_are_refused_before_netd_is_asked() {
    here(async {
        let front = front();
        let (session, _) = open(&front, "", 0).await;
        let text = |text: &str| {
            let mut writer = Writer::default();
            writer.string(text);
            writer.finish()
        };
        let word = |number: u32| number.to_be_bytes().to_vec();
        let network = [text("n"), vec![0; 16]].concat();
        let cases: [(i32, &[&[u8]]); 9] = [
            (283, &[&word(1), &word(0x40)]),
            (273, &[&word(1), &word(0x1_0000)]),
            (432, &[&text("<network/>"), &word(2)]),
            (437, &[&text("<network/>"), &word(2)]),
            (43, &[&network, &word(2)]),
            (341, &[&network, &word(0), &word(1), &word(1)]),
            (291, &[&network, &word(3), &word(4), &word(u32::MAX), &text("<host/>"), &word(4)]),
            (404, &[&network, &word(1), &word(1)]),
            (445, &[&network, &word(0), &word(0), &word(4)]),
        ];
        for (procedure, args) in cases {
            let (code, message) = said(&front, &session, header(procedure), &args.concat()).await.unwrap_err();
            assert_eq!(code, 8, "{procedure}: {message}");
            assert!(message.starts_with("unsupported flags (0x"), "{procedure}: {message}");
        }
    });
}

#[test]
fn what_is_not_served_is_unknown_and_what_needs_netd_says_that_it_is_not_there() {
    here(async {
        let front = front();
        let (session, _) = open(&front, "", 0).await;
        let unknown = said(&front, &session, header(999), &[]).await.unwrap_err();
        assert_eq!(unknown, (39, "unknown procedure: 999".into()));
        let other = Header { program: 0x2000_8087, ..header(1) };
        let (code, message) = said(&front, &session, other, &[]).await.unwrap_err();
        assert!(code == 39 && message.starts_with("Cannot find program 536903815 version 1"), "{message}");
        let (code, message) = said(&front, &session, header(52), &[]).await.unwrap_err();
        assert!(code == 38 && message.contains("/nonexistent/netd.sock"), "{message}");
        let short = said(&front, &session, header(46), &[0, 0, 0, 9]).await.unwrap_err();
        assert!(short.0 == 39 && short.1.starts_with("Unable to decode message payload"), "{short:?}");
    });
}

#[test]
fn guests_are_looked_for_and_not_found() {
    here(async {
        let front = front();
        let (session, _) = open(&front, "", 0).await;
        let mut args = Writer::default();
        args.string("vm1");
        let not_found = said(&front, &session, header(23), &args.finish()).await.unwrap_err();
        assert_eq!(not_found, (42, "Domain not found: no domain with matching name 'vm1'".into()));
        assert_eq!(said(&front, &session, header(273), &[0; 8]).await.unwrap(), [0; 8]);
        for number in [25, 51, 71, 73, 178] {
            assert_eq!(said(&front, &session, header(number), &[]).await.unwrap(), [0; 4], "{number}");
        }
        for list in [21, 37, 72, 74, 179] {
            assert_eq!(said(&front, &session, header(list), &[0, 0, 0, 9]).await.unwrap(), [0; 4], "{list}");
        }
    });
}

/// Arguments that might be some: words with small and great numbers, texts with lengths that are true and that are not.
fn arguments(random: &mut StdRng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.random_range(0..8) {
        match random.random_range(0..6) {
            0 => bytes.extend(random.random_range(0u32..4).to_be_bytes()),
            1 => bytes.extend(random.random::<u32>().to_be_bytes()),
            2 => bytes.extend(u32::MAX.to_be_bytes()),
            3 => {
                let mut writer = Writer::default();
                writer.string(["", "default", "<network/>", "\u{e4}\u{1f600}"][random.random_range(0..4)]);
                bytes.extend(writer.finish());
            }
            4 => bytes.extend(random.random::<[u8; 16]>()),
            _ => bytes.extend((0..random.random_range(0..64)).map(|_| random.random::<u8>())),
        }
    }
    bytes
}

#[test]
fn no_arguments_make_it_panic_or_take_memory_that_is_not_there() {
    here(async {
        let front = front();
        let mut random = StdRng::seed_from_u64(4);
        for procedure in Procedure::ALL {
            let (session, _) = open(&front, "", 0).await;
            GREATEST.set(0);
            for _ in 0..300 {
                session.open.set(true);
                let args = arguments(&mut random);
                // Whatever it says, it is an answer.
                let _ = said(&front, &session, header(*procedure as i32), &args).await;
            }
            // procfs is read in greater pieces than any of these messages.
            assert!(GREATEST.get() < 256 << 10, "{}: {} bytes", procedure.name(), GREATEST.get());
        }
    });
}

#[test]
fn no_bytes_make_frames_panic_or_take_memory_that_is_not_there() {
    let mut random = StdRng::seed_from_u64(5);
    for round in 0..3000 {
        let mut bytes = header(random.random_range(0..500)).with(&arguments(&mut random));
        for _ in 0..random.random_range(0..4) {
            let at = random.random_range(0..bytes.len().min(HEAD + 8));
            bytes[at] = [0, 1, 0xff, random.random()][random.random_range(0..4)];
        }
        let fds = vec![(); random.random_range(0..3)];
        GREATEST.set(0);
        let mut frames = Frames::<()>::new(4 << 20);
        let mut fds = Some(fds);
        for chunk in bytes.chunks(random.random_range(1..50)) {
            if frames.push(chunk, fds.take().unwrap_or_default()).is_err() {
                break;
            }
            while let Some(frame) = frames.next() {
                let _ = meaning(&frame.header);
            }
        }
        assert!(GREATEST.get() < 4096, "round {round}: {} bytes", GREATEST.get());
    }
}
