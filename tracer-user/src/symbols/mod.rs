//! Names of the functions that addresses lie in: in processes of pods and in the kernel.
//!
//! Programs and libraries come from pods, so they are hostile: they are opened by their mapping, only their symbols are
//! read, in bounded amounts, into memory of our own (a mapping of the file itself could be pulled from under us), and a
//! symboliser that panics over them costs those names alone. All of it happens in a thread of its own, so that no pod can
//! make the collector wait.

mod image;
mod kernel;
mod process;
mod worker;

pub use worker::{Answer, Named, Question, Symbols};

/// Longest name of a function that is kept, bytes: templates can have names of megabytes.
const MAX_NAME: usize = 512;

/// A place in code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Name of the function, where there is one.
    pub symbol: Option<String>,
    /// Program or library as its process sees it, or `kernel`. Comes from the pod: escape it before it is printed.
    pub module: String,
    /// Build id of the file, in hexadecimal, where it has one.
    pub build_id: Option<String>,
    /// Offset in the file, where there is no name: with the build id enough to find it later.
    pub offset: Option<u64>,
}

/// A name cut to what is kept.
fn kept(name: &str) -> String {
    let mut end = name.len().min(MAX_NAME);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_between_characters() {
        assert_eq!(kept("leak"), "leak");
        let long = "ä".repeat(MAX_NAME);
        assert_eq!(kept(&long).chars().count(), MAX_NAME / 2);
        assert_eq!(kept(&format!("a{long}")).len(), MAX_NAME - 1);
    }
}
