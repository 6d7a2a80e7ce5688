//! Metrics: what they tell is so, a strict parser of another make reads them, and nobody can hold the daemon by them.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use netd_api::PortRequest;
use nix::sys::signal::Signal;
use tests::{
    daemon::Daemon,
    space::{Running, told},
    station::Station,
    wait::{self, PATIENCE},
};

/// Says something and reads until the other side has nothing more to say.
fn converse(mut stream: impl Read + Write, words: &[u8]) -> Result<String> {
    stream.write_all(words)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn connect(netd: &Daemon) -> Result<UnixStream> {
    let stream = UnixStream::connect(netd.host.dir().join("run/metrics.sock"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn scrape(netd: &Daemon) -> Result<String> {
    let answer = converse(connect(netd)?, b"GET /metrics HTTP/1.1\r\nHost: netd\r\n\r\n")?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    ensure!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    ensure!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    Ok(body.to_owned())
}

/// The value of the series that begins so.
fn value(page: &str, series: &str) -> Option<f64> {
    let line = page.lines().find(|line| line.starts_with(&format!("{series} ")))?;
    line.rsplit(' ').next()?.parse().ok()
}

/// Until the series has at least this value.
fn reaches(netd: &Daemon, series: &str, least: f64) -> Result<String> {
    wait::until(&format!("{series} is {least}"), PATIENCE, || {
        let page = scrape(netd)?;
        Ok(value(&page, series).is_some_and(|value| value >= least).then_some(page))
    })
}

#[test]
fn what_guests_and_servers_do_is_counted_and_a_strict_parser_reads_it() -> Result<()> {
    let mut netd = Daemon::new("metrics")?;
    netd.ok(&["net-start", "default"])?;
    let guest = Some("a \"quoted\\name".into());
    let request =
        PortRequest { network: "default".into(), guest, mac: None, queues: 1, guards: None, ..PortRequest::default() };
    let station = Station::plug_with(&netd, "strange", request)?;
    let address = station.lease()?;
    wait::until_true("the host is reached", PATIENCE, || station.reaches("192.168.122.1"))?;
    station.space.sh("dig +time=5 +tries=3 @192.168.122.1 nobody.example. >/dev/null")?;
    station.space.sh("dig +time=5 +tries=3 @192.168.122.1 localhost. >/dev/null")?;
    // A lie, for its guards: another's address.
    station.space.ip("address add 192.168.122.77/24 dev eth0")?;
    station.space.run("ping", &["-n", "-c", "1", "-W", "1", "-I", "192.168.122.77", "192.168.122.1"])?;
    let port = station.port.as_ref().context("a port")?;
    let guest = format!(r#"network="default",interface="{}",guest="a \"quoted\\name""#, port.interface);

    let net = r#"network="default""#;
    let page = reaches(&netd, &format!("netd_dns_queries_total{{{net},result=\"noerror\"}}"), 1.0)?;
    let arp = format!("netd_guard_dropped_packets_total{{{guest},reason=\"arp\"}}");
    let ip = format!("netd_guard_dropped_packets_total{{{guest},reason=\"ip\"}}");
    wait::until_true("the lie is counted", PATIENCE, || {
        let page = scrape(&netd)?;
        Ok([&arp, &ip].iter().filter_map(|series| value(&page, series)).sum::<f64>() >= 1.0)
    })?;
    let at_least = |series: &str, least: f64| {
        let found = value(&page, series);
        assert!(found.is_some_and(|value| value >= least), "{series} is {found:?} in\n{page}");
    };
    at_least(&format!("netd_network_active{{{net}}}"), 1.0);
    at_least(&format!("netd_network_leases{{{net}}}"), 1.0);
    at_least(&format!("netd_network_ports{{{net}}}"), 1.0);
    at_least(&format!("netd_network_bytes_total{{{net},direction=\"from_guest\"}}"), 100.0);
    at_least(&format!("netd_port_bytes_total{{{guest},direction=\"from_guest\"}}"), 100.0);
    at_least(&format!("netd_port_packets_total{{{guest},direction=\"to_guest\"}}"), 2.0);
    for (message, direction) in [("discover", "received"), ("request", "received"), ("offer", "sent"), ("ack", "sent")]
    {
        at_least(&format!("netd_dhcp_messages_{direction}_total{{{net},type=\"{message}\"}}"), 1.0);
    }
    at_least(&format!("netd_dhcp_reply_latency_seconds_count{{{net}}}"), 2.0);
    at_least(&format!("netd_dns_latency_seconds_count{{{net}}}"), 2.0);
    at_least(r#"netd_nft_table_replacements_total{family="bridge"}"#, 1.0);
    assert!(page.contains("netd_build_info{version="), "{page}");
    assert!(!page.contains(&address), "no label is an address");

    // Another program takes the rules away.
    netd.host.sh("nft flush ruleset")?;
    reaches(&netd, r#"netd_heals_total{what="firewall"}"#, 1.0)?;

    let file = netd.file("page.txt", &page)?;
    let script = "import sys\nfrom prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
                  families = list(read(open(sys.argv[1]).read()))\n\
                  assert all(f.documentation for f in families), 'a family without help'\n\
                  print(len(families), [s.labels['guest'] for f in families for s in f.samples if 'guest' in s.labels][0])";
    let output = netd.host.command("/usr/bin/python3").args(["-c", script, &file]).output()?;
    ensure!(output.status.success(), "the parser refuses the page: {}", told(&output));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.trim().ends_with("a \"quoted\\name"), "{said}");
    drop(station);
    netd.finish()
}

#[test]
fn clients_that_are_slow_silent_or_talk_nonsense_hold_nobody() -> Result<()> {
    let mut netd = Daemon::new("hostile")?;
    let silent: Vec<UnixStream> = (0..40).map(|_| connect(&netd)).collect::<Result<_>>()?;
    let mut slow = connect(&netd)?;
    slow.write_all(b"GET /metrics HT")?;
    for (words, status) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"DELETE /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"\xff\xff\xff\r\n\r\n", "400"),
    ] {
        let answer = converse(connect(&netd)?, words)?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    // Longer than any request is cut off, with or without an answer.
    let mut endless = connect(&netd)?;
    let mut sent = 0;
    while endless.write_all(&[b'x'; 1024]).is_ok() {
        sent += 1024;
        ensure!(sent < 10 << 20, "the daemon reads without end");
    }
    assert!(scrape(&netd)?.ends_with("# EOF\n"));
    // Who says nothing is let go.
    let mut byte = [0];
    for mut stream in silent {
        match stream.read(&mut byte) {
            Ok(0) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("still there: {other:?}"),
        }
    }
    let mode = fs::metadata(netd.host.dir().join("run/metrics.sock"))?.permissions().mode() & 0o777;
    assert_eq!(mode, 0o666, "everyone may read");
    netd.finish()
}

#[test]
fn tcp_is_served_on_loopback_and_nowhere_else() -> Result<()> {
    let mut netd = Daemon::new("tcp")?;
    netd.stop()?;
    for elsewhere in ["0.0.0.0:9177", "192.168.122.1:9177", "[::]:9177", "9177"] {
        let mut command = netd.daemon_command()?;
        let mut refused = Running(command.args(["--metrics", elsewhere]).stderr(Stdio::piped()).spawn()?);
        let status = wait::until("the daemon refuses to start", PATIENCE, || Ok(refused.0.try_wait()?))?;
        let mut said = String::new();
        refused.0.stderr.take().context("a pipe")?.read_to_string(&mut said)?;
        assert!(!status.success() && said.contains("127.0.0.1"), "{said}");
    }
    let mut running = Running(netd.daemon_command()?.args(["--metrics", "127.0.0.1:9177"]).spawn()?);
    let page = wait::until("the page over TCP", PATIENCE, || {
        let answer = netd.host.inside(|| {
            let Ok(stream) = TcpStream::connect("127.0.0.1:9177") else { return Ok(None) };
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            converse(stream, b"GET /metrics HTTP/1.0\r\n\r\n").map(Some)
        })?;
        Ok(answer)
    })?;
    assert!(page.contains("application/openmetrics-text") && page.contains("netd_uptime_seconds"), "{page}");
    running.signal(Signal::SIGTERM);
    wait::until("the daemon ends", PATIENCE, || Ok(running.0.try_wait()?))?;
    assert!(!netd.host.dir().join("run/metrics.sock").exists());
    netd.finish_stopped()
}
