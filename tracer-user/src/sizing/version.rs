//! What each KubeVirt release budgets, and which one each Harvester release ships.

use std::fmt;

use super::Error;

/// A release number; `main` is newer than all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(pub u16, pub u16, pub u16);

/// KubeVirt's main branch.
pub const MAIN: Release = Release(u16::MAX, 0, 0);

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == MAIN {
            return f.pad("main");
        }
        f.pad(&format!("{}.{}.{}", self.0, self.1, self.2))
    }
}

/// The constants of the releases since `since`, in MiB. kubevirt: pkg/virt-controller/services/template.go
/// (to 1.7), pkg/hypervisor/kvm/hypervisorbackend.go (since 1.8); every release tag was compared.
#[derive(Clone, Copy, Debug)]
pub struct Constants {
    /// The first release with these.
    pub since: Release,
    /// virt-launcher-monitor.
    pub monitor: u64,
    /// virt-launcher.
    pub launcher: u64,
    /// virtlogd.
    pub virtlogd: u64,
    /// libvirtd, virtqemud since 0.59.
    pub libvirt: u64,
    /// QEMU itself.
    pub qemu: u64,
    /// Video RAM.
    pub video: u64,
}

const fn row(since: Release, mib: [u64; 6]) -> Constants {
    let [monitor, launcher, virtlogd, libvirt, qemu, video] = mib;
    Constants {
        since,
        monitor,
        launcher,
        virtlogd,
        libvirt,
        qemu,
        video,
    }
}

/// The change points, oldest first.
pub const CONSTANTS: [Constants; 8] = [
    row(Release(0, 54, 0), [25, 75, 17, 33, 30, 16]),
    row(Release(0, 55, 0), [25, 100, 17, 33, 30, 16]),
    row(Release(0, 57, 0), [25, 100, 18, 35, 30, 16]),
    row(Release(0, 58, 1), [25, 100, 20, 35, 30, 16]),
    row(Release(1, 4, 1), [25, 100, 20, 40, 30, 16]),
    row(Release(1, 5, 0), [25, 100, 25, 40, 30, 16]),
    row(Release(1, 6, 0), [25, 100, 25, 40, 30, 32]),
    row(MAIN, [25, 100, 25, 40, 50, 32]),
];

/// The newest patch of each minor release.
const NEWEST: [Release; 16] = [
    Release(0, 54, 0),
    Release(0, 55, 2),
    Release(0, 56, 1),
    Release(0, 57, 1),
    Release(0, 58, 2),
    Release(0, 59, 2),
    Release(1, 0, 1),
    Release(1, 1, 1),
    Release(1, 2, 2),
    Release(1, 3, 1),
    Release(1, 4, 1),
    Release(1, 5, 3),
    Release(1, 6, 6),
    Release(1, 7, 4),
    Release(1, 8, 4),
    Release(1, 9, 0),
];

/// Which KubeVirt a Harvester release ships. harvester: deploy/charts/harvester/values.yaml of each tag
const HARVESTER: [(Release, Release); 27] = [
    ships([1, 1, 0], [0, 54, 0]),
    ships([1, 1, 1], [0, 54, 0]),
    ships([1, 1, 2], [0, 54, 0]),
    ships([1, 1, 3], [0, 54, 0]),
    ships([1, 2, 0], [0, 54, 0]),
    ships([1, 2, 1], [0, 54, 0]),
    ships([1, 2, 2], [1, 1, 1]),
    ships([1, 3, 0], [1, 1, 0]),
    ships([1, 3, 1], [1, 1, 1]),
    ships([1, 3, 2], [1, 1, 1]),
    ships([1, 4, 0], [1, 2, 2]),
    ships([1, 4, 1], [1, 2, 2]),
    ships([1, 4, 2], [1, 3, 1]),
    ships([1, 4, 3], [1, 3, 1]),
    ships([1, 5, 0], [1, 4, 0]),
    ships([1, 5, 1], [1, 4, 0]),
    ships([1, 5, 2], [1, 4, 1]),
    ships([1, 6, 0], [1, 5, 2]),
    ships([1, 6, 1], [1, 5, 2]),
    ships([1, 7, 0], [1, 6, 3]),
    ships([1, 7, 1], [1, 6, 3]),
    ships([1, 7, 2], [1, 6, 6]),
    ships([1, 7, 3], [1, 6, 6]),
    ships([1, 8, 0], [1, 7, 0]),
    ships([1, 8, 1], [1, 7, 0]),
    ships([1, 8, 2], [1, 7, 4]),
    // Its release candidates up to rc6: there is no release yet.
    ships([1, 9, 0], [1, 8, 4]),
];

const fn ships(harvester: [u16; 3], kubevirt: [u16; 3]) -> (Release, Release) {
    let ([a, b, c], [x, y, z]) = (harvester, kubevirt);
    (Release(a, b, c), Release(x, y, z))
}

/// A KubeVirt release and its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KubeVirt(pub Release);

impl KubeVirt {
    /// The newest release.
    pub const NEWEST: Self = Self(NEWEST[NEWEST.len() - 1]);

    /// Reads `1.5` (its newest patch), `1.4.0`, `v1.4.0` or `main`.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`], with what there is.
    pub fn named(text: &str) -> Result<Self, Error> {
        if text == "main" {
            return Ok(Self(MAIN));
        }
        find(text, |major, minor| {
            NEWEST
                .iter()
                .copied()
                .find(|release| (release.0, release.1) == (major, minor))
        })
        .filter(|(newest, patch)| patch.is_none_or(|patch| patch <= newest.2))
        .map(|(newest, patch)| Self(Release(newest.0, newest.1, patch.unwrap_or(newest.2))))
        .ok_or_else(|| unknown("KubeVirt", text, &NEWEST, ", main"))
    }

    /// The first releases with each set of constants or rules: enough to try every arithmetic there is.
    #[must_use]
    pub fn distinct() -> Vec<Self> {
        let mut releases: Vec<Release> = CONSTANTS.iter().map(|row| row.since).collect();
        releases.extend([Release(1, 0, 0), Release(1, 1, 0), Release(1, 7, 0), Release(1, 8, 0)]);
        releases.sort_unstable();
        releases.into_iter().map(Self).collect()
    }

    /// Its constants.
    #[must_use]
    pub fn constants(self) -> Constants {
        CONSTANTS
            .into_iter()
            .rev()
            .find(|row| row.since <= self.0)
            .unwrap_or(CONSTANTS[0])
    }

    /// Whether it is this release or a newer one.
    #[must_use]
    pub fn since(self, major: u16, minor: u16) -> bool {
        self.0 >= Release(major, minor, 0)
    }
}

/// A Harvester release and the KubeVirt in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Harvester {
    /// The release.
    pub release: Release,
    /// What it ships.
    pub kubevirt: KubeVirt,
}

impl Harvester {
    /// Reads `1.4` (its newest patch) or `1.4.0`.
    ///
    /// # Errors
    /// [`Error::UnknownVersion`], with what there is.
    pub fn named(text: &str) -> Result<Self, Error> {
        let rows = || HARVESTER.iter();
        let newest = |major, minor| {
            rows()
                .map(|row| row.0)
                .filter(|release| (release.0, release.1) == (major, minor))
                .max()
        };
        find(text, newest)
            .map(|(newest, patch)| Release(newest.0, newest.1, patch.unwrap_or(newest.2)))
            .and_then(|release| rows().find(|row| row.0 == release))
            .map(|(release, kubevirt)| Self {
                release: *release,
                kubevirt: KubeVirt(*kubevirt),
            })
            .ok_or_else(|| unknown("Harvester", text, &HARVESTER.map(|row| row.0), ""))
    }

    /// Whether it has the ratio setting.
    #[must_use]
    pub fn has_ratio(self) -> bool {
        self.release >= Release(1, 4, 0)
    }
}

fn find(text: &str, newest: impl Fn(u16, u16) -> Option<Release>) -> Option<(Release, Option<u16>)> {
    let numbers: Option<Vec<u16>> = text
        .strip_prefix('v')
        .unwrap_or(text)
        .splitn(4, '.')
        .map(|number| number.parse().ok())
        .collect();
    match numbers?.as_slice() {
        [major, minor] => Some((newest(*major, *minor)?, None)),
        [major, minor, patch] => Some((newest(*major, *minor)?, Some(*patch))),
        _ => None,
    }
}

fn unknown(product: &'static str, asked: &str, known: &[Release], more: &str) -> Error {
    let mut minors: Vec<String> = known
        .iter()
        .map(|release| format!("{}.{}", release.0, release.1))
        .collect();
    minors.dedup();
    Error::UnknownVersion {
        product,
        asked: asked.escape_default().take(40).collect(),
        known: format!("{}{more}", minors.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minor_means_its_newest_patch() {
        assert_eq!(KubeVirt::named("1.4").unwrap().0, Release(1, 4, 1));
        assert_eq!(KubeVirt::named("v1.4.0").unwrap().constants().libvirt, 35);
        assert_eq!(KubeVirt::named("1.4.1").unwrap().constants().libvirt, 40);
        assert_eq!(Harvester::named("1.7").unwrap().kubevirt.0, Release(1, 6, 6));
        assert_eq!(Harvester::named("1.4.0").unwrap().kubevirt.0, Release(1, 2, 2));
        assert_eq!(Harvester::named("1.9").unwrap().kubevirt.0, Release(1, 8, 4));
    }

    #[test]
    fn an_unknown_version_lists_what_there_is() {
        for text in ["", "2", "9.9", "1.9.7", "1.5.x", "1.2.3.4", "99999999999.1"] {
            let message = KubeVirt::named(text).unwrap_err().to_string();
            assert!(
                message.contains("there is 0.54, ") && message.ends_with("1.9, main"),
                "{message}"
            );
        }
        assert!(Harvester::named("0.3").unwrap_err().to_string().ends_with("1.8, 1.9"));
    }
}
