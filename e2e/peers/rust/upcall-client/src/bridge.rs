// The client's stream is a pair of channels in its own process. Each is joined to a connection to the hybrid socket here.
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;

use dbs_virtio_devices::vsock::backend::{VsockBackend, VsockInnerBackend, VsockStream};

/// Serves the client's connections, in threads of their own.
pub fn start(mut backend: VsockInnerBackend, path: PathBuf) {
    thread::spawn(move || loop {
        wait(&[backend.as_raw_fd()]);
        match backend.accept() {
            Ok(stream) => {
                let path = path.clone();
                thread::spawn(move || join(stream, &path));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("accept: {error}"),
        }
    });
}

/// Ends, and drops the client's stream, as soon as either side has ended. The client then connects again.
fn join(mut client: Box<dyn VsockStream>, path: &Path) {
    let Ok(mut guest) = UnixStream::connect(path) else { return };
    let mut bytes = [0; 65536];
    loop {
        let [from_client, from_guest] = wait(&[client.as_raw_fd(), guest.as_raw_fd()]);
        if from_client {
            match client.read(&mut bytes) {
                Ok(count) => {
                    if guest.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
        if from_guest {
            // What is read at once is passed on at once: a reply in two pieces reaches the client as two pieces.
            match guest.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => {
                    if client.write_all(&bytes[..count]).is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Waits until one of the descriptors can be read, and says which.
fn wait<const N: usize>(descriptors: &[RawFd; N]) -> [bool; N] {
    let mut polled = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    // SAFETY: the array holds N entries and outlives the call.
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, -1) };
    polled.map(|entry| entry.revents != 0)
}
