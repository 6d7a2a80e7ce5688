//! The command line: words → verb → print → exit code. It decides nothing; the daemon does.
//!
//! `args` has every flag, `format`, `table` and `failure` turn values into text, `net`, `change`, `port` and `forward` ask the daemon.
//! Results go to stdout, with virsh's empty line behind them; errors, hints and notes go to stderr.

mod args;
mod capture;
mod change;
mod completion;
mod connect;
mod edit;
mod event_text;
mod events;
mod failure;
mod format;
mod forward;
mod import;
mod manual;
mod metadata;
mod net;
mod net_port;
mod port;
mod table;
mod why;
mod xpath;

#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use clap_complete::Shell;
use serde_json::Value;

use crate::{
    daemon::{self, Options},
    doctor,
};

use args::{
    Ask, CaptureArgs, Cli, DaemonArgs, DaemonRunArgs, Global, ImportArgs, Names, OutputForm, PortVerb, Verb, Watch,
    WhyArgs,
};
use failure::Failure;

/// What a verb that succeeded has to say.
struct Output {
    /// As virsh says it.
    text: String,
    /// What of that `--quiet` leaves.
    kind: Kind,
    /// The same for programs.
    json: Value,
    /// What the user should know besides.
    notices: Vec<String>,
}

/// What a text is, for `--quiet`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What was asked for: all of it stays.
    Answer,
    /// A table: its head goes.
    Table,
    /// Says that something was done: nothing stays.
    Done,
}

impl Output {
    fn new(text: String, json: Value) -> Self {
        Output { text, kind: Kind::Answer, json, notices: Vec::new() }
    }

    fn table(text: String, json: Value) -> Self {
        Output { kind: Kind::Table, ..Output::new(text, json) }
    }

    fn done(text: String, json: Value) -> Self {
        Output { kind: Kind::Done, ..Output::new(text, json) }
    }

    fn with_notices(self, notices: Vec<String>) -> Self {
        Output { notices, ..self }
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // help and version are errors to clap, and go to stdout
            let _: io::Result<()> = error.print();
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let (form, quiet) = (cli.global.output, cli.global.quiet);
    let socket = socket(&cli.global);
    let result = match cli.verb {
        Verb::Daemon(args) => return daemon(args),
        Verb::Capture(args) => return capture(&socket, &args, form),
        Verb::Doctor(args) => return doctor(&socket, &options(args), form),
        Verb::Import(args) => return import(&socket, &args, form),
        Verb::Completion { shell } => return completion(shell),
        Verb::Complete { what } => return complete(&socket, what),
        Verb::Man { directory } => manual::write(&directory)
            .map(|()| Output::done(String::new(), Value::Null))
            .map_err(|cause| Failure::file(&directory, &cause)),
        Verb::Why(args) => return why(&socket, &args, form),
        // becomes the program; there is no result to print
        Verb::Port { verb: PortVerb::Exec(args) } => Err(port::exec(&socket, &args)),
        Verb::Watch(verb) => return watch(&socket, &verb, form, quiet),
        Verb::Ask(verb) => runtime().and_then(|runtime| runtime.block_on(ask(&socket, &verb))),
    };
    print(&result, form, quiet);
    if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The daemon's socket, or with `--readonly` the one beside it that everybody may use.
fn socket(global: &Global) -> PathBuf {
    let socket = netd_api::socket_path(global.socket.as_deref());
    if global.readonly { connect::read_only(&socket) } else { socket }
}

/// Says each step when it is done. The exit status is a failure if anything was left out.
fn import(socket: &Path, args: &ImportArgs, form: OutputForm) -> ExitCode {
    let done = runtime().and_then(|runtime| runtime.block_on(import::run(socket, args, form)));
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            print(&Err(failure), form, true);
            ExitCode::FAILURE
        }
    }
}

fn completion(shell: Shell) -> ExitCode {
    match completion::script(shell, Cli::command()) {
        Some(script) => {
            let _: io::Result<()> = io::stdout().write_all(script.as_bytes());
            ExitCode::SUCCESS
        }
        None => {
            let _: io::Result<()> = writeln!(io::stderr(), "error: there is completion for bash, zsh and fish only");
            ExitCode::FAILURE
        }
    }
}

/// Says nothing where it cannot say a name: whoever types has not asked for errors.
fn complete(socket: &Path, what: Names) -> ExitCode {
    let asked = runtime().and_then(|runtime| runtime.block_on(net::names(socket, what)));
    let names = asked.unwrap_or_default();
    let text: String = names.iter().map(|name| format!("{name}\n")).collect();
    let _: io::Result<()> = io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn print(result: &Result<Output, Failure>, form: OutputForm, quiet: bool) {
    let (stdout, stderr) = render(result, form, quiet);
    let _: io::Result<()> = io::stderr().write_all(stderr.as_bytes());
    // a reader that has gone away has what it wanted
    let _: io::Result<()> = io::stdout().write_all(stdout.as_bytes());
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let built = tokio::runtime::Builder::new_current_thread().enable_all().build();
    built.map_err(|cause| Failure::new(format!("cannot start: {}", failure::without_number(&cause))))
}

/// These print while they run.
fn watch(socket: &Path, verb: &Watch, form: OutputForm, quiet: bool) -> ExitCode {
    let watched = runtime().and_then(|runtime| {
        runtime.block_on(async {
            match verb {
                Watch::Events(args) => events::events(socket, args, form).await.map(|()| ExitCode::SUCCESS),
                Watch::NetEvent(args) => events::net_event(socket, args).await,
                Watch::Wait(args) => {
                    print(&Ok(events::wait(socket, args).await?), form, quiet);
                    Ok(ExitCode::SUCCESS)
                }
            }
        })
    });
    watched.unwrap_or_else(|failure| {
        print(&Err(failure), form, quiet);
        ExitCode::FAILURE
    })
}

fn options(args: DaemonArgs) -> Options {
    let DaemonArgs { config_dir, state_dir, runtime_dir, resolv_conf, nss_dir, hosts_file } = args;
    Options { config_dir, state_dir, runtime_dir, resolv_conf, nss_dir, metrics: None, hosts_file }
}

/// What it captured is its output; there is nothing else to print but an error.
fn capture(socket: &Path, args: &CaptureArgs, form: OutputForm) -> ExitCode {
    match capture::run(socket, args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (_, stderr) = render(&Err(failure), form, false);
            let _: io::Result<()> = io::stderr().write_all(stderr.as_bytes());
            ExitCode::FAILURE
        }
    }
}

/// The exit status is a failure if a check fails, as virt-host-validate's.
fn doctor(socket: &Path, options: &Options, form: OutputForm) -> ExitCode {
    let looked = runtime().map(|runtime| {
        runtime.block_on(async { doctor::look(options, socket, connect::connect_to_read(socket).await).await })
    });
    let findings = looked.map(|facts| doctor::examine(&facts));
    let healthy = findings.as_ref().is_ok_and(|findings| !doctor::has_failure(findings));
    let coloured = io::stdout().is_terminal();
    // Unlike virsh, virt-host-validate ends with its last line.
    let text = |findings: &[_]| doctor::text(findings, coloured).trim_end().to_owned();
    let report = |findings: Vec<_>| Output::new(text(&findings), doctor::json(&findings));
    print(&findings.map(report), form, false);
    if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The exit status is a failure if something stops the flow.
fn why(socket: &Path, args: &WhyArgs, form: OutputForm) -> ExitCode {
    let form = if args.json { OutputForm::Json } else { form };
    let answer = runtime().and_then(|runtime| runtime.block_on(why::explain(socket, args)));
    let passes = answer.as_ref().is_ok_and(|(_, passes)| *passes);
    print(&answer.map(|(output, _)| output), form, false);
    if passes { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What goes to stdout and to stderr.
fn render(result: &Result<Output, Failure>, form: OutputForm, quiet: bool) -> (String, String) {
    match result {
        Ok(output) => {
            let stdout = match form {
                OutputForm::Text if quiet => quietly(output).to_owned(),
                OutputForm::Text => format!("{}\n", output.text),
                OutputForm::Json => format!("{:#}\n", output.json),
            };
            (stdout, output.notices.iter().map(|notice| format!("note: {notice}\n")).collect())
        }
        Err(failure) => {
            let stdout = match form {
                OutputForm::Text if !quiet => "\n",
                OutputForm::Text | OutputForm::Json => "",
            };
            (stdout.to_owned(), failure.to_string())
        }
    }
}

/// What `virsh --quiet` prints of it.
fn quietly(output: &Output) -> &str {
    match output.kind {
        Kind::Answer => &output.text,
        Kind::Table => output.text.splitn(3, '\n').nth(2).unwrap_or_default(),
        Kind::Done => "",
    }
}

async fn ask(socket: &Path, verb: &Ask) -> Result<Output, Failure> {
    match verb {
        Ask::NetList(args) => net::list(socket, *args).await,
        Ask::NetStart(network) => net::start(socket, network).await,
        Ask::NetDestroy(network) => net::destroy(socket, network).await,
        Ask::NetAutostart(args) => net::autostart(socket, args).await,
        Ask::NetDefine(file) => net::define(socket, file).await,
        Ask::NetCreate(file) => net::create(socket, file).await,
        Ask::NetUndefine(network) => net::undefine(socket, network).await,
        Ask::NetDumpxml(args) => net::dumpxml(socket, args).await,
        Ask::NetInfo(network) => net::info(socket, network).await,
        Ask::NetName(network) => net::name(socket, network).await,
        Ask::NetUuid(network) => net::uuid(socket, network).await,
        Ask::NetDesc(args) => metadata::desc(socket, args).await,
        Ask::NetMetadata(args) => metadata::metadata(socket, args).await,
        Ask::NetEdit(network) => edit::network(socket, network).await,
        Ask::NetApply(args) => change::apply(socket, args).await,
        Ask::Confirm(args) => change::confirm(socket, args).await,
        Ask::NetUpdate(args) => change::update(socket, args).await,
        Ask::NetDhcpLeases(args) => net::dhcp_leases(socket, args).await,
        Ask::NetPortList(args) => net_port::list(socket, args).await,
        Ask::NetPortCreate(args) => net_port::create(socket, args).await,
        Ask::NetPortDumpxml(args) => net_port::dumpxml(socket, args).await,
        Ask::NetPortDelete(args) => net_port::delete(socket, args).await,
        Ask::Domifaddr(args) => port::domifaddr(socket, args).await,
        Ask::PortList(args) => port::list(socket, args).await,
        Ask::PortInfo(args) => port::info(socket, args).await,
        Ask::ForwardAdd(args) => forward::add(socket, args).await,
        Ask::ForwardDelete(args) => forward::delete(socket, args).await,
        Ask::ForwardList(args) => forward::list(socket, args).await,
    }
}

/// Logs to stderr, as much as $RUST_LOG says.
fn daemon(args: DaemonRunArgs) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
    match daemon::run(&Options { metrics: args.metrics, ..options(args.places) }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _: io::Result<()> = writeln!(io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
