// One connection of AF_VSOCK, by the crate vsock or tokio-vsock, that takes the steps it is told. JSON lines on stdout: `listening`,
// then `done` with what came of the steps.
//
//   guest-peer vsock|tokio-vsock connect <cid> <port> <step>…
//   guest-peer vsock|tokio-vsock listen <port> <step>…
//
// Steps: send:<bytes>, recv:<bytes>, recv-end, send-error, shutdown:write|read|both, pause:<ms>, close.
use std::env::args;
use std::io::{Error, ErrorKind, Result};
use std::thread::sleep;
use std::time::Duration;

use serde_json::{json, Value};
use transport::Stream;

mod transport;

/// The bytes of each direction count on, so that a lost or doubled byte is seen.
const PERIOD: usize = 251;
const BLOCK: usize = 65536;

#[derive(Default)]
struct Outcome {
    sent: usize,
    received: usize,
    wrong: usize,
    ended: bool,
    send_error: Option<String>,
}

fn main() {
    let words: Vec<String> = args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut outcome = Outcome::default();
    let (step, result) = match words[..] {
        [by, "connect", cid, port, ref steps @ ..] => match transport::connect(by, number(cid) as u32, number(port) as u32) {
            Ok(stream) => take(stream, steps, &mut outcome),
            Err(error) => ("connect".to_string(), Err(error)),
        },
        [by, "listen", port, ref steps @ ..] => {
            let listening = || println!("{}", json!({ "event": "listening" }));
            match transport::accept(by, number(port) as u32, listening) {
                Ok(stream) => take(stream, steps, &mut outcome),
                Err(error) => ("listen".to_string(), Err(error)),
            }
        }
        _ => panic!("unknown arguments: {words:?}"),
    };
    println!("{}", json!({ "event": "done", "outcome": told(&outcome, &step, result) }));
}

fn told(outcome: &Outcome, step: &str, result: Result<()>) -> Value {
    let mut value = json!({
        "sent": outcome.sent, "received": outcome.received, "wrong": outcome.wrong, "ended": outcome.ended,
    });
    if let Some(code) = &outcome.send_error {
        value["sendError"] = json!(code);
    }
    if let Err(error) = result {
        value["error"] = json!({ "step": step, "code": code(&error) });
    }
    value
}

/// Stops at the first step that fails, and says which it was.
fn take(stream: Box<dyn Stream>, steps: &[&str], outcome: &mut Outcome) -> (String, Result<()>) {
    let mut stream = Some(stream);
    for step in steps {
        if *step == "close" {
            stream = None;
            continue;
        }
        let open = stream.as_mut().expect("an open stream");
        if let Err(error) = one(open.as_mut(), step, outcome) {
            return (step.to_string(), Err(error));
        }
    }
    (String::new(), Ok(()))
}

fn one(stream: &mut dyn Stream, step: &str, outcome: &mut Outcome) -> Result<()> {
    match step.split_once(':') {
        Some(("send", count)) => send(stream, number(count), outcome),
        Some(("recv", count)) => receive(stream, Some(number(count)), outcome),
        Some(("shutdown", how)) => stream.shutdown(how),
        Some(("pause", ms)) => {
            sleep(Duration::from_millis(number(ms) as u64));
            Ok(())
        }
        None if step == "recv-end" => receive(stream, None, outcome),
        None if step == "send-error" => {
            while outcome.send_error.is_none() {
                match send(stream, 1, outcome) {
                    Ok(()) => sleep(Duration::from_millis(5)),
                    Err(error) => outcome.send_error = Some(code(&error)),
                }
            }
            Ok(())
        }
        _ => panic!("unknown step: {step}"),
    }
}

fn send(stream: &mut dyn Stream, count: usize, outcome: &mut Outcome) -> Result<()> {
    let end = outcome.sent + count;
    while outcome.sent < end {
        let next = BLOCK.min(end - outcome.sent);
        let bytes: Vec<u8> = (outcome.sent..outcome.sent + next).map(|at| (at % PERIOD) as u8).collect();
        outcome.sent += stream.write(&bytes)?;
    }
    Ok(())
}

/// That many bytes, or all up to the end.
fn receive(stream: &mut dyn Stream, count: Option<usize>, outcome: &mut Outcome) -> Result<()> {
    let mut bytes = [0; BLOCK];
    let end = count.map(|count| outcome.received + count);
    while end != Some(outcome.received) {
        let most = end.map_or(BLOCK, |end| BLOCK.min(end - outcome.received));
        let got = stream.read(&mut bytes[..most])?;
        if got == 0 {
            outcome.ended = true;
            return if count.is_none() { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        outcome.wrong += (0..got).filter(|i| bytes[*i] as usize != (outcome.received + i) % PERIOD).count();
        outcome.received += got;
    }
    Ok(())
}

fn code(error: &Error) -> String {
    match error.raw_os_error() {
        Some(libc::EPIPE) => "EPIPE".into(),
        Some(libc::ECONNRESET) => "ECONNRESET".into(),
        Some(libc::ECONNREFUSED) => "ECONNREFUSED".into(),
        Some(libc::ETIMEDOUT) => "ETIMEDOUT".into(),
        Some(libc::ENOTCONN) => "ENOTCONN".into(),
        Some(libc::ENODEV) => "ENODEV".into(),
        _ => error.to_string(),
    }
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}
