// The two crates as one: streams that block.
use std::io::{Read, Result, Write};
use std::net::Shutdown;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use vsock::{VsockListener, VsockStream, VMADDR_CID_ANY};

pub trait Stream {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize>;
    fn write(&mut self, bytes: &[u8]) -> Result<usize>;
    fn shutdown(&mut self, how: &str) -> Result<()>;
}

pub fn connect(by: &str, cid: u32, port: u32) -> Result<Box<dyn Stream>> {
    if by == "vsock" {
        return Ok(Box::new(VsockStream::connect_with_cid_port(cid, port)?));
    }
    let runtime = runtime()?;
    let stream = runtime.block_on(tokio_vsock::VsockStream::connect(tokio_vsock::VsockAddr::new(cid, port)))?;
    Ok(Box::new(Tokio { stream, runtime }))
}

/// The first connection; the listener is closed then.
pub fn accept(by: &str, port: u32, listening: impl FnOnce()) -> Result<Box<dyn Stream>> {
    if by == "vsock" {
        let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port)?;
        listening();
        return Ok(Box::new(listener.accept()?.0));
    }
    let runtime = runtime()?;
    let stream = runtime.block_on(async {
        let listener = tokio_vsock::VsockListener::bind(tokio_vsock::VsockAddr::new(VMADDR_CID_ANY, port))?;
        listening();
        listener.accept().await.map(|(stream, _)| stream)
    })?;
    Ok(Box::new(Tokio { stream, runtime }))
}

impl Stream for VsockStream {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        Read::read(self, bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        Write::write(self, bytes)
    }

    fn shutdown(&mut self, how: &str) -> Result<()> {
        VsockStream::shutdown(self, direction(how))
    }
}

// The stream comes first: it is dropped while its runtime is there.
struct Tokio {
    stream: tokio_vsock::VsockStream,
    runtime: Runtime,
}

impl Stream for Tokio {
    fn read(&mut self, bytes: &mut [u8]) -> Result<usize> {
        self.runtime.block_on(AsyncReadExt::read(&mut self.stream, bytes))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        self.runtime.block_on(AsyncWriteExt::write(&mut self.stream, bytes))
    }

    fn shutdown(&mut self, how: &str) -> Result<()> {
        self.stream.shutdown(direction(how))
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_io().build()
}

fn direction(how: &str) -> Shutdown {
    match how {
        "read" => Shutdown::Read,
        "write" => Shutdown::Write,
        _ => Shutdown::Both,
    }
}
