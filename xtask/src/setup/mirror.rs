//! Which Debian mirror to fetch from: the one that the system itself uses, where it uses one.

use std::fs;

/// Mirrors of Debian's two archives.
#[derive(Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Of the main archive.
    pub main: String,
    /// Of the security archive.
    pub security: String,
}

impl Mirror {
    /// The mirror in the system's apt sources, else deb.debian.org.
    #[must_use]
    pub fn of_system() -> Self {
        let files = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        let files = files.map(|entry| entry.path()).chain(["/etc/apt/sources.list".into()]);
        let texts: Vec<String> = files.filter_map(|file| fs::read_to_string(file).ok()).collect();
        Self::in_sources(&texts.join("\n"))
    }

    /// The mirror named in apt sources of either syntax (one-line or deb822).
    fn in_sources(sources: &str) -> Self {
        let words = || {
            let lines = sources.lines().filter(|line| !line.trim_start().starts_with('#'));
            lines
                .flat_map(str::split_whitespace)
                .filter(|word| word.starts_with("http"))
        };
        let ending = |end: &str| {
            words()
                .map(|uri| uri.trim_end_matches('/'))
                .find(|uri| uri.ends_with(end))
        };
        let main = ending("/debian").unwrap_or("http://deb.debian.org/debian");
        let security = ending("/debian-security").unwrap_or("http://deb.debian.org/debian-security");
        Self {
            main: main.to_owned(),
            security: security.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(main: &str, security: &str) -> Mirror {
        Mirror {
            main: main.to_owned(),
            security: security.to_owned(),
        }
    }

    #[test]
    fn reads_deb822() {
        let sources = "Types: deb\n# http://snapshot.debian.org/archive/debian\nURIs: http://ftp.de.debian.org/debian/\n\
                       Suites: trixie\n\nTypes: deb\nURIs: https://mirror.example/debian-security\n";
        let expected = mirror(
            "http://ftp.de.debian.org/debian",
            "https://mirror.example/debian-security",
        );
        assert_eq!(Mirror::in_sources(sources), expected);
    }

    #[test]
    fn reads_one_line_entries() {
        let sources = "#deb http://old.example/debian x main\ndeb [arch=amd64] http://m.example/debian trixie main\n";
        let expected = mirror("http://m.example/debian", "http://deb.debian.org/debian-security");
        assert_eq!(Mirror::in_sources(sources), expected);
    }

    #[test]
    fn another_distribution_has_no_debian_mirror() {
        let sources = "URIs: http://archive.ubuntu.com/ubuntu/\nURIs: https://deb.nodesource.com/node_20.x\n";
        let expected = mirror("http://deb.debian.org/debian", "http://deb.debian.org/debian-security");
        assert_eq!(Mirror::in_sources(sources), expected);
    }
}
