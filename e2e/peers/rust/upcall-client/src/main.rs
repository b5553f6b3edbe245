// The client crate dbs-upcall, as Dragonball uses it, behind a hybrid socket: requests are JSON lines on stdin, answers JSON lines
// on stdout, in the same order.
//
//   upcall-client <hybrid socket>
use std::io::{stdin, BufRead};
use std::path::PathBuf;
use std::sync::mpsc::{channel, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use dbs_upcall::{
    CpuDevRequest, DevMgrRequest, DevMgrResponse, DevMgrService, MmioDevRequest, UpcallClient, UpcallClientRequest,
    UpcallClientResponse,
};
use dbs_utils::epoll_manager::EpollManager;
use dbs_virtio_devices::vsock::backend::VsockInnerBackend;
use serde::Deserialize;
use serde_json::{json, Value};

mod bridge;

/// One line of stdin.
#[derive(Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line {
    /// Waits until the client says that it is ready, or for `timeout_ms`.
    Ready {
        timeout_ms: u64,
    },
    AddMmio {
        base: u64,
        size: u64,
        irq: u32,
        timeout_ms: u64,
    },
    DelMmio {
        base: u64,
        size: u64,
        irq: u32,
        timeout_ms: u64,
    },
    AddVcpu {
        apic_ids: Vec<u8>,
        timeout_ms: u64,
    },
    DelVcpu {
        apic_ids: Vec<u8>,
        timeout_ms: u64,
    },
    /// Sends one of the requests above `count` times, one after the other, of which each has to succeed; and tells how long that took.
    Repeat {
        request: Box<Line>,
        count: u32,
    },
    /// The message of one of the others, in hexadecimal digits; nothing is sent.
    Build {
        request: Box<Line>,
    },
}

impl Line {
    /// None if it is not a request of the client's.
    fn request(&self) -> Option<(DevMgrRequest, u64)> {
        match self {
            Line::AddMmio { base, size, irq, timeout_ms } => {
                Some((DevMgrRequest::AddMmioDev(window(*base, *size, *irq)), *timeout_ms))
            }
            Line::DelMmio { base, size, irq, timeout_ms } => {
                Some((DevMgrRequest::DelMmioDev(window(*base, *size, *irq)), *timeout_ms))
            }
            Line::AddVcpu { apic_ids, timeout_ms } => Some((DevMgrRequest::AddVcpu(cpus(apic_ids)), *timeout_ms)),
            Line::DelVcpu { apic_ids, timeout_ms } => Some((DevMgrRequest::DelVcpu(cpus(apic_ids)), *timeout_ms)),
            Line::Ready { .. } | Line::Repeat { .. } | Line::Build { .. } => None,
        }
    }
}

fn window(mmio_base: u64, mmio_size: u64, mmio_irq: u32) -> MmioDevRequest {
    MmioDevRequest { mmio_base, mmio_size, mmio_irq }
}

#[cfg(target_arch = "x86_64")]
fn cpus(ids: &[u8]) -> CpuDevRequest {
    let mut apic_ids = [0; 256];
    apic_ids[..ids.len()].copy_from_slice(ids);
    // Dragonball's version of its APICs.
    CpuDevRequest { count: ids.len() as u8, apic_ver: 0x14, apic_ids }
}

/// On aarch64 a request names no CPU, it only counts them.
#[cfg(target_arch = "aarch64")]
fn cpus(ids: &[u8]) -> CpuDevRequest {
    CpuDevRequest { count: ids.len() as u8 }
}

fn main() {
    let path: PathBuf = std::env::args_os().nth(1).expect("usage: upcall-client <hybrid socket>").into();
    let backend = VsockInnerBackend::new().expect("VsockInnerBackend");
    let events = EpollManager::default();
    let mut client = UpcallClient::new(backend.get_connector(), events.clone(), DevMgrService::default()).expect("UpcallClient");
    client.connect().expect("connect");
    bridge::start(backend, path);
    thread::spawn(move || loop {
        let _ = events.handle_events(-1);
    });
    for line in stdin().lock().lines() {
        let line = line.expect("stdin");
        let answer = match serde_json::from_str(&line) {
            Ok(line) => answer(&client, &line),
            Err(error) => json!({ "invalid": error.to_string() }),
        };
        println!("{answer}");
    }
}

fn answer(client: &UpcallClient<DevMgrService>, line: &Line) -> Value {
    match line {
        Line::Ready { timeout_ms } => ready(client, Duration::from_millis(*timeout_ms)),
        Line::Repeat { request, count } => repeat(client, request, *count),
        Line::Build { request } => match request.request() {
            Some((request, _)) => json!({ "hex": request.build().iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
            None => json!({ "invalid": "not a request" }),
        },
        _ => {
            let (request, timeout_ms) = line.request().expect("a request");
            ask(client, request, Duration::from_millis(timeout_ms))
        }
    }
}

fn ready(client: &UpcallClient<DevMgrService>, timeout: Duration) -> Value {
    let started = Instant::now();
    while !client.is_ready() {
        if started.elapsed() > timeout {
            return json!({ "ready": false, "state": format!("{:?}", client.get_state()) });
        }
        thread::sleep(Duration::from_millis(5));
    }
    json!({ "ready": true, "ms": started.elapsed().as_millis() as u64 })
}

fn ask(client: &UpcallClient<DevMgrService>, request: DevMgrRequest, timeout: Duration) -> Value {
    let (sender, receiver) = channel();
    let answered = Box::new(move |response| drop(sender.send(response)));
    if let Err(error) = client.send_request(UpcallClientRequest::DevMgr(request), answered) {
        return json!({ "refused": error.to_string() });
    }
    match receiver.recv_timeout(timeout) {
        Ok(UpcallClientResponse::DevMgr(response)) => told(response),
        Ok(UpcallClientResponse::UpcallReset) => json!({ "reset": true }),
        Err(RecvTimeoutError::Timeout) => json!({ "timeout": true }),
        Err(RecvTimeoutError::Disconnected) => json!({ "dropped": true }),
    }
}

fn repeat(client: &UpcallClient<DevMgrService>, line: &Line, count: u32) -> Value {
    let started = Instant::now();
    for _ in 0..count {
        let (request, timeout_ms) = line.request().expect("a request");
        let answer = ask(client, request, Duration::from_millis(timeout_ms));
        if answer["result"] != 0 {
            return answer;
        }
    }
    json!({ "seconds": started.elapsed().as_secs_f64() })
}

fn told(response: DevMgrResponse) -> Value {
    match response {
        DevMgrResponse::AddMmioDev(answer) => json!({ "kind": "addMmio", "result": answer.result }),
        #[cfg(target_arch = "x86_64")]
        DevMgrResponse::CpuDev(answer) => json!({ "kind": "cpu", "result": answer.result, "index": answer.info.apic_id_index }),
        #[cfg(target_arch = "aarch64")]
        DevMgrResponse::CpuDev(answer) => json!({ "kind": "cpu", "result": answer.result, "index": answer.info.cpu_id }),
        DevMgrResponse::Other(answer) => json!({ "kind": "other", "result": answer.result }),
    }
}
