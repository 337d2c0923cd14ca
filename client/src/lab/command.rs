//! `icephone lab`: the servers on real sockets, and the files that phones need to use them.

use super::running::Running;
use crate::cli::args::LabArgs;
use crate::cli::exit::ExitCode;
use crate::cli::print;
use crate::cli::session::NotReady;
use crate::cli::stop::Stop;

/// Runs the lab until Ctrl-C, SIGTERM or `stop` on its control socket.
///
/// # Errors
///
/// [`NotReady`]: an address is in use, the folder cannot be written, a fault does not exist.
pub async fn run(args: &LabArgs) -> Result<ExitCode, NotReady> {
    let mut stop = Stop::new();
    let started = Running::start(args).await;
    let mut lab = started.map_err(|text| NotReady { code: ExitCode::Config, text })?;
    if args.json {
        print::out(&lab.description().to_string());
    } else {
        print::out(&introduction(&lab));
    }
    tokio::select! {
        () = stop.asked() => {}
        () = lab.asked_to_stop() => {}
    }
    lab.stop().await;
    Ok(ExitCode::Success)
}

fn introduction(lab: &Running) -> String {
    let at = lab.addresses();
    let folder = lab.folder().display();
    let relays: Vec<String> =
        at.relays.iter().map(|(plain, tls)| format!("  relay   {plain} (UDP, TCP), {tls} (TLS)")).collect();
    let relays = relays.join("\n");
    format!(
        "{domain} is up; its files are in {folder}\n\
         \x20 DNS     {dns}\n\
         \x20 SIP     {sip} (UDP, TCP), {tls} (TLS)\n\
         {relays}\n\n\
         An echo to call, and a call to it:\n\n\
         \x20 icephone -c {folder}/echo.toml bot\n\
         \x20 icephone -c {folder}/alice.toml call echo --tune --duration 10s\n\n\
         Ctrl-C stops the lab.",
        domain = lab.domain(),
        dns = at.dns,
        sip = at.sip,
        tls = at.sip_tls,
    )
}
