//! The thread that finds names.

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::Place;
use super::kernel::KernelNames;
use super::process::Processes;
use crate::node::Node;

/// What the thread is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Names of a stack.
    Stack {
        /// What the answer is called.
        number: u64,
        /// Process.
        pid: u32,
        /// Addresses in the process, innermost first.
        user: Vec<u64>,
        /// Addresses in the kernel, innermost first.
        kernel: Vec<u64>,
    },
    /// A process is gone, or started another program.
    Forget {
        /// Which.
        pid: u32,
    },
}

/// A stack with names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// As in the question.
    pub number: u64,
    /// Places in the process, innermost first.
    pub user: Vec<Place>,
    /// Places in the kernel, innermost first.
    pub kernel: Vec<Place>,
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A stack.
    Stack(Named),
    /// Nothing yet.
    Waiting,
    /// Nothing, and nothing will: the thread is gone.
    Ended,
}

/// The thread that finds names, as others see it. It ends with this.
#[derive(Debug)]
pub struct Symbols {
    questions: Sender<Question>,
    answers: Receiver<Named>,
}

impl Symbols {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the kernel gives no thread.
    pub fn start(node: Node) -> io::Result<Self> {
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        thread::Builder::new()
            .name("symbols".to_owned())
            .spawn(move || work(node, &asked, &answer))?;
        Ok(Self { questions, answers })
    }

    /// Asks. Whoever asks bounds how much is asked before it is answered.
    pub fn ask(&self, question: Question) {
        // A thread that is gone shows when its answers are asked for.
        let _ = self.questions.send(question);
    }

    /// The next answer, if there is one.
    #[must_use]
    pub fn answer(&self) -> Answer {
        match self.answers.try_recv() {
            Ok(named) => Answer::Stack(named),
            Err(TryRecvError::Empty) => Answer::Waiting,
            Err(TryRecvError::Disconnected) => Answer::Ended,
        }
    }

    /// The next answer, waiting for it until `deadline`.
    #[must_use]
    pub fn answer_by(&self, deadline: Instant) -> Answer {
        let left = deadline.saturating_duration_since(Instant::now());
        if left == Duration::ZERO {
            return self.answer();
        }
        self.answers.recv_timeout(left).map_or(Answer::Waiting, Answer::Stack)
    }
}

fn work(node: Node, questions: &Receiver<Question>, answers: &Sender<Named>) {
    let mut processes = Processes::new(node);
    let mut kernel_names = KernelNames::new();
    for question in questions {
        match question {
            Question::Forget { pid } => processes.forget(pid),
            Question::Stack {
                number,
                pid,
                user,
                kernel,
            } => {
                let user = processes.places(pid, &user);
                let kernel = kernel_names.names(&kernel).into_iter().map(in_kernel).collect();
                if answers.send(Named { number, user, kernel }).is_err() {
                    return;
                }
            }
        }
    }
}

/// A place in the kernel. Its address is of no use on another boot, and nobody's business without a name.
fn in_kernel(symbol: Option<String>) -> Place {
    Place {
        symbol,
        module: "kernel".to_owned(),
        ..Place::default()
    }
}
