//! EDGE: the verbs that wait for something to happen: `events`, `net-event` and `wait`. They print as it happens, and
//! know the time and Ctrl-C.

use std::{
    io::{self, Write},
    net::Ipv6Addr,
    path::Path,
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use netd_api::{Client, ClientError, ErrorKind, EventKind, Monitor, Told};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{
    Output,
    args::{Condition, EventsArgs, NetEventArgs, OutputForm, WaitArgs},
    connect::{connect_to_read, local_time, utc_time},
    event_text::{NetEvent, line},
    failure::{About, Failure},
};
use crate::events::moves_guests;

/// Nothing tells of entries in the host's neighbour table: they are looked at this often.
const LOOK: Duration = Duration::from_secs(1);

/// Between two tries to find the daemon again.
const RETRY: Duration = Duration::from_millis(200);

/// No clock counts further than this, in seconds: a hundred years.
const LONGEST: u64 = 100 * 365 * 86_400;

async fn listen(socket: &Path, network: Option<&str>) -> Result<Monitor, ClientError> {
    connect_to_read(socket).await?.monitor(network.map(str::to_owned)).await
}

/// Prints events until nobody reads them any more.
pub(super) async fn events(socket: &Path, args: &EventsArgs, form: OutputForm) -> Result<(), Failure> {
    let network = args.network.as_deref();
    let about = network.map_or(About::Nothing, About::Network);
    let failed = |e| Failure::client("Failed to listen for events", about, &e);
    let mut monitor = listen(socket, network).await.map_err(failed)?;
    loop {
        let told = monitor.next().await.map_err(|e| Failure::client("", about, &e))?;
        let line = match form {
            OutputForm::Text if !args.json => line(&told, local_time),
            _ => json!(told).to_string(),
        };
        if say(&line).is_err() {
            return Ok(());
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

/// virsh's `net-event`. Its exit status is a failure if nothing happened.
pub(super) async fn net_event(socket: &Path, args: &NetEventArgs) -> Result<ExitCode, Failure> {
    if args.list {
        let names: String = NetEvent::ALL.into_iter().map(|kind| format!("{}\n", kind.name())).collect();
        let _: io::Result<()> = say(&names);
        return Ok(ExitCode::SUCCESS);
    }
    let Some(wanted) = &args.event else {
        return Err(Failure::new("either --list or --event <type> is required"));
    };
    let Some(kind) = NetEvent::ALL.into_iter().find(|kind| kind.name() == wanted) else {
        return Err(Failure::new(format!("unknown event type {wanted}")));
    };
    let network = args.network.as_deref();
    let about = network.map_or(About::Nothing, About::Network);
    let failed = |e| Failure::client("", about, &e);
    let mut monitor = listen(socket, network).await.map_err(failed)?;
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let end = deadline(args.timeout);
    let mut count = 0;
    let ended = loop {
        tokio::select! {
            told = monitor.next() => {
                let told = told.map_err(failed)?;
                let Some((event, said)) = told.event.as_ref().and_then(|event| Some((event, kind.line(event)?))) else {
                    continue;
                };
                let stamp = if args.timestamp { format!("{}: ", utc_time(event.time)) } else { String::new() };
                count += 1;
                if say(&format!("{stamp}{said}")).is_err() || !args.repeat {
                    break "";
                }
            }
            () = until(end) => break "event loop timed out\n",
            _ = &mut interrupt => break "event loop interrupted\n",
        }
    };
    let _: io::Result<()> = say(&format!("{ended}events received: {count}\n"));
    Ok(if count > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Waits until something is so of a guest; at once if it is so already.
pub(super) async fn wait(socket: &Path, args: &WaitArgs) -> Result<Output, Failure> {
    let WaitArgs { guest, timeout, .. } = args;
    let end = deadline(*timeout);
    let failed = |e| Failure::client(format!("Failed to wait for guest '{guest}'"), About::Nothing, &e);
    let mut known = false;
    loop {
        match session(socket, args, end, &mut known).await {
            Ok(Some(output)) => return Ok(output),
            Ok(None) => break,
            // The daemon is being restarted: whom it serves is served by the next one.
            Err(ClientError::Connect { .. } | ClientError::Transport(_)) if known => {}
            Err(error) => return Err(failed(error)),
        }
        if end.is_some_and(|end| Instant::now() + RETRY >= end) {
            break;
        }
        sleep(RETRY).await;
    }
    Err(in_vain(socket, args).await)
}

/// One connection's worth of waiting. `None` if the time is over.
async fn session(
    socket: &Path,
    args: &WaitArgs,
    end: Option<Instant>,
    known: &mut bool,
) -> Result<Option<Output>, ClientError> {
    // First listen, then look: what becomes so in between is heard of.
    let mut monitor = listen(socket, None).await?;
    let mut client = connect_to_read(socket).await?;
    *known = true;
    loop {
        let looked = look(&mut client, &args.guest, args.condition);
        let found = match end {
            // Once at least, however short the time.
            Some(end) => match timeout_at(end.max(Instant::now() + LOOK), looked).await {
                Ok(found) => found?,
                Err(_) => return Ok(None),
            },
            None => looked.await?,
        };
        if found.is_some() {
            return Ok(found);
        }
        let mut again = pin!(sleep(LOOK));
        loop {
            tokio::select! {
                told = monitor.next() => if may_change(&told?, &args.guest) {
                    break;
                },
                () = &mut again, if args.condition == Condition::Address => break,
                () = until(end) => return Ok(None),
            }
        }
    }
}

/// Whether a guest may be elsewhere after this.
fn may_change(told: &Told, guest: &str) -> bool {
    match &told.event {
        None => true,
        Some(event) => {
            let own = event.guest.as_ref().is_none_or(|name| name == guest);
            own && (moves_guests(event.kind) || event.kind == EventKind::AddressSeen)
        }
    }
}

/// What is to be printed, if it is so.
async fn look(client: &mut Client, guest: &str, condition: Condition) -> Result<Option<Output>, ClientError> {
    let sources: &[netd_api::AddressSource] = match condition {
        Condition::Port => {
            let ports = client.list_ports(None).await?.ports;
            let own: Vec<_> = ports.into_iter().filter(|port| port.guest.as_deref() == Some(guest)).collect();
            let text: String = own.iter().map(|port| format!("{}\n", port.interface)).collect();
            return Ok((!own.is_empty()).then(|| Output::new(text, json!(own))));
        }
        Condition::Lease => &[netd_api::AddressSource::Lease],
        Condition::Address => &[netd_api::AddressSource::Lease, netd_api::AddressSource::Arp],
    };
    for &source in sources {
        let addresses = match client.list_addresses(guest, source).await {
            // Every guest has a link-local one before it has any that is of use to others.
            Ok(found) => found.addresses.into_iter().filter(|own| !is_link_local(&own.address)).collect(),
            Err(ClientError::Refused(error)) if error.kind() == ErrorKind::NoGuest => Vec::new(),
            Err(error) => return Err(error),
        };
        if !addresses.is_empty() {
            let text: String = addresses.iter().map(|address| format!("{}\n", address.address)).collect();
            return Ok(Some(Output::new(text, json!(addresses))));
        }
    }
    Ok(None)
}

fn is_link_local(address: &str) -> bool {
    address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_unicast_link_local())
}

/// What is missing, and where to look next.
async fn in_vain(socket: &Path, args: &WaitArgs) -> Failure {
    let WaitArgs { guest, condition, timeout } = args;
    let seconds = timeout.unwrap_or_default();
    let failure = Failure::new(format!("Timed out waiting for guest '{guest}'"));
    let has_port = match connect_to_read(socket).await {
        Ok(mut client) => look(&mut client, guest, Condition::Port).await.is_ok_and(|found| found.is_some()),
        Err(error) => return failure.because(error.to_string()),
    };
    match condition {
        _ if !has_port => failure
            .because(format!("no guest of that name has a port after {seconds} s"))
            .with_hint("'netd port-list' shows the guests that have"),
        Condition::Port => failure.because(format!("it has a port only now, after {seconds} s")),
        Condition::Lease | Condition::Address => failure
            .because(format!("it has a port but no {} after {seconds} s", condition.noun()))
            .with_hint("'netd events' shows whether it asks for one"),
    }
}

fn deadline(seconds: Option<u64>) -> Option<Instant> {
    seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds.min(LONGEST)))
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
