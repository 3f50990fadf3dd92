//! What host and init say to each other: a [`Plan`] in the initramfs one way, [`Message`]s over a serial port the other.
//!
//! A message is a line of JSON; after a [`Message::Output`] its bytes follow, as they are.

use std::fmt;
use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// Where init finds its plan.
pub const PLAN: &str = "etc/headroom-vm.json";

/// The serial port for messages; the kernel's console has the first one for itself.
pub const PORT: &str = "/dev/ttyS1";

/// The disk that files are brought back on.
pub const RESULTS_DISK: &str = "/dev/vda";

/// The disk with a file system, where the plan asks for one.
pub const SCRATCH_DISK: &str = "/dev/vdb";

/// The folder whose files are brought back.
pub const RESULTS: &str = "/results";

/// Where the scratch disk is mounted.
pub const SCRATCH: &str = "/var/tmp";

/// Which version of memory cgroups the VM mounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cgroup {
    /// The memory controller's own hierarchy at `/sys/fs/cgroup/memory`.
    V1,
    /// The unified hierarchy at `/sys/fs/cgroup`.
    #[default]
    V2,
}

impl fmt::Display for Cgroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// What init has to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The cgroup version to mount.
    pub cgroup: Cgroup,
    /// Modules to load, in this order.
    pub modules: Vec<String>,
    /// Whether there is a scratch disk to mount.
    pub scratch_disk: bool,
    /// Variables for the commands' environment.
    pub environment: Vec<(String, String)>,
    /// Command lines, run one after the other.
    pub commands: Vec<Vec<String>>,
}

/// One of a command's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// With this exit status.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// It could not be started, for this reason.
    NotStarted(String),
}

/// What init tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// The VM is up; this is `uname -r`.
    Up {
        /// The kernel's release.
        release: String,
    },
    /// A command wrote something.
    Output {
        /// Where to.
        stream: Stream,
        /// How many bytes follow.
        length: usize,
    },
    /// A command ended. They come in the order of the plan.
    Ended(Status),
    /// Init could not do its part.
    Failed(String),
    /// All is done and files are on the results disk. A VM that does not get here has failed.
    Done,
}

/// Writes a message, with `payload` after a [`Message::Output`].
///
/// # Errors
/// When the port cannot be written.
pub fn send(port: &mut impl Write, message: &Message, payload: &[u8]) -> io::Result<()> {
    let mut bytes = serde_json::to_vec(message)?;
    bytes.push(b'\n');
    bytes.extend_from_slice(payload);
    port.write_all(&bytes)
}

/// Bytes that are not what init sends.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbled(pub String);

/// Takes the port's bytes as they come and gives messages as they get complete.
#[derive(Debug, Default)]
pub struct Decoder {
    pending: Vec<u8>,
}

impl Decoder {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next complete message with its payload.
    ///
    /// # Errors
    /// When a line is not a message.
    pub fn take(&mut self) -> Result<Option<(Message, Vec<u8>)>, Garbled> {
        let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') else {
            return Ok(None);
        };
        let line = &self.pending[..end];
        let message = serde_json::from_slice(line)
            .map_err(|error| Garbled(format!("{error} in {:?}", String::from_utf8_lossy(line))))?;
        let length = match message {
            Message::Output { length, .. } => length,
            _ => 0,
        };
        let start = end + 1;
        if self.pending.len() - start < length {
            return Ok(None);
        }
        let payload = self.pending[start..start + length].to_vec();
        self.pending.drain(..start + length);
        Ok(Some((message, payload)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn message() -> impl Strategy<Value = (Message, Vec<u8>)> {
        prop_oneof![
            vec(any::<u8>(), 0..100).prop_map(|payload| {
                let stream = if payload.len() % 2 == 0 {
                    Stream::Stdout
                } else {
                    Stream::Stderr
                };
                let length = payload.len();
                (Message::Output { stream, length }, payload)
            }),
            any::<i32>().prop_map(|status| (Message::Ended(Status::Exited(status)), Vec::new())),
            any::<String>().prop_map(|reason| (Message::Ended(Status::NotStarted(reason)), Vec::new())),
            any::<String>().prop_map(|reason| (Message::Failed(reason), Vec::new())),
            Just((Message::Done, Vec::new())),
        ]
    }

    proptest! {
        #[test]
        fn whatever_the_chunks_messages_arrive(sent in vec(message(), 0..8), chunk in 1_usize..50) {
            let mut bytes = Vec::new();
            for (message, payload) in &sent {
                send(&mut bytes, message, payload).unwrap();
            }
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for chunk in bytes.chunks(chunk) {
                decoder.push(chunk);
                while let Some(message) = decoder.take().unwrap() {
                    received.push(message);
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn noise_is_no_message_and_no_panic(noise in vec(any::<u8>(), 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&noise);
            while let Ok(Some(_)) = decoder.take() {}
        }
    }
}
