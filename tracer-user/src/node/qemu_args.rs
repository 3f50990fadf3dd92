//! What QEMU's command line says about the VM: its name and its memory.
//!
//! QEMU takes an option's value as `key=value,...` with `,,` for a comma, and `-object` and `-device` also as JSON;
//! libvirt writes both, by version.

use serde_json::Value;

use crate::recording::event::VmShape;

/// What backs a piece of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// `memory-backend-ram`: private anonymous memory, or shared with `share=on`.
    Ram,
    /// `memory-backend-memfd`.
    Memfd,
    /// `memory-backend-file`: mostly hugetlbfs.
    File,
    /// `memory-backend-epc`: SGX.
    Epc,
}

/// A `-object memory-backend-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryObject {
    /// Its id.
    pub id: String,
    /// What backs it.
    pub backend: Backend,
    /// Its size, bytes.
    pub size: u64,
    /// Path of its file or folder, for [`Backend::File`].
    pub path: Option<String>,
    /// It is made of huge pages of hugetlbfs.
    pub hugetlb: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QemuArgs {
    /// `-name guest=...`
    pub name: Option<String>,
    /// `-m`, bytes: the memory at boot.
    pub ram: Option<u64>,
    /// Memory backends.
    pub objects: Vec<MemoryObject>,
    /// virtio-mem devices: memory backend and the size that the guest was asked to plug.
    pub virtio_mem: Vec<(String, u64)>,
    /// Its vCPUs and devices.
    pub shape: VmShape,
    /// `-machine none`: libvirt asking QEMU what it can do, not a VM.
    pub no_machine: bool,
}

impl QemuArgs {
    /// Reads a command line; what cannot be understood is skipped.
    #[must_use]
    pub fn parse(args: &[String]) -> Self {
        let mut found = Self::default();
        for pair in args.windows(2) {
            let Some(option) = pair[0].strip_prefix('-') else {
                continue;
            };
            let value = pair[1].as_str();
            match option.strip_prefix('-').unwrap_or(option) {
                "name" => found.name = options(value, "guest").take("guest").filter(|name| !name.is_empty()),
                "m" => found.ram = options(value, "size").take("size").and_then(|size| size_of(&size, 20)),
                "object" => {
                    found.objects.extend(memory_object(value));
                    let is_iothread = options(value, "qom-type")
                        .take("qom-type")
                        .is_some_and(|t| t == "iothread");
                    found.shape.iothreads = found.shape.iothreads.saturating_add(u32::from(is_iothread));
                }
                "device" => {
                    found.virtio_mem.extend(virtio_mem(value));
                    device(value, &mut found.shape);
                }
                "smp" => found.shape.vcpus = vcpus(value),
                "tpmdev" => found.shape.tpm = true,
                "machine" | "M" => found.no_machine = options(value, "type").take("type").is_some_and(|t| t == "none"),
                _ => {}
            }
        }
        found
    }

    /// Size of guest RAM: what the VM was given. A virtio-mem device counts with what was requested of it.
    #[must_use]
    pub fn guest_ram(&self) -> u64 {
        if self.objects.is_empty() {
            return self.ram.unwrap_or(0);
        }
        self.given_where(|_| true)
    }

    /// The part of guest RAM that is made of huge pages of hugetlbfs.
    #[must_use]
    pub fn guest_hugetlb(&self) -> u64 {
        self.given_where(|object| object.hugetlb)
    }

    fn given_where(&self, wanted: impl Fn(&MemoryObject) -> bool) -> u64 {
        let objects = self.objects.iter().filter(|object| wanted(object));
        objects.map(|object| self.given(object)).fold(0, u64::saturating_add)
    }

    fn given(&self, object: &MemoryObject) -> u64 {
        let requested = self.virtio_mem.iter().find(|(id, _)| *id == object.id);
        requested.map_or(object.size, |(_, requested)| object.size.min(*requested))
    }
}

/// The `key=value` pairs of an option.
struct Options(Vec<(String, String)>);

impl Options {
    fn take(&self, key: &str) -> Option<String> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
    }
}

/// Reads either syntax. `implied` is the key of a first value without one.
fn options(text: &str, implied: &str) -> Options {
    if text.starts_with('{') {
        return Options(json_options(text));
    }
    let pairs = split_commas(text).into_iter().enumerate().map(|(index, part)| {
        let (key, value) = match part.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if index == 0 => (implied.to_owned(), part),
            None => (part, "on".to_owned()),
        };
        (key, value)
    });
    Options(pairs.collect())
}

fn json_options(text: &str) -> Vec<(String, String)> {
    let Ok(Value::Object(object)) = serde_json::from_str(text) else {
        return Vec::new();
    };
    let scalar = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(on) => Some(if on { "on" } else { "off" }.to_owned()),
        _ => None,
    };
    object
        .into_iter()
        .filter_map(|(key, value)| Some((key, scalar(value)?)))
        .collect()
}

/// Splits at commas that are not doubled, and undoubles those (qemu: util/qemu-option.c get_opt_value).
fn split_commas(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == ',' && chars.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    parts
}

fn memory_object(text: &str) -> Option<MemoryObject> {
    let options = options(text, "qom-type");
    let backend = match options.take("qom-type")?.as_str() {
        "memory-backend-ram" => Backend::Ram,
        "memory-backend-memfd" => Backend::Memfd,
        "memory-backend-file" => Backend::File,
        "memory-backend-epc" => Backend::Epc,
        _ => return None,
    };
    let path = options.take("mem-path");
    // Where hugetlbfs is mounted is the pod's affair; these are the usual names.
    let on_hugetlbfs = |path: &String| path.contains("hugepages") || path.contains("hugetlbfs");
    Some(MemoryObject {
        id: options.take("id")?,
        backend,
        size: size_of(&options.take("size")?, 0).filter(|size| *size > 0)?,
        hugetlb: match backend {
            Backend::Memfd => options
                .take("hugetlb")
                .is_some_and(|on| matches!(on.as_str(), "on" | "yes" | "true")),
            Backend::File => path.as_ref().is_some_and(on_hugetlbfs),
            Backend::Ram | Backend::Epc => false,
        },
        path,
    })
}

fn virtio_mem(text: &str) -> Option<(String, u64)> {
    let options = options(text, "driver");
    options
        .take("driver")
        .filter(|driver| driver.starts_with("virtio-mem"))?;
    let requested = options.take("requested-size");
    Some((
        options.take("memdev")?,
        requested.and_then(|size| size_of(&size, 0)).unwrap_or(0),
    ))
}

/// `-smp 2,...` or `-smp cpus=2,...`; 0 where it says only a topology.
fn vcpus(text: &str) -> u32 {
    let cpus = options(text, "cpus").take("cpus");
    cpus.and_then(|cpus| cpus.parse().ok()).unwrap_or(0)
}

/// Adds a device to what the budget depends on. Names of graphics devices: qemu: hw/display/* (10.1).
fn device(text: &str, shape: &mut VmShape) {
    let Some(driver) = options(text, "driver").take("driver") else {
        return;
    };
    let is_graphics = [
        "VGA",
        "virtio-vga",
        "virtio-gpu",
        "qxl",
        "bochs-display",
        "ramfb",
        "cirrus-vga",
    ]
    .iter()
    .any(|name| driver.starts_with(name));
    shape.graphics |= is_graphics;
    shape.tpm |= driver.starts_with("tpm-");
    // vfio-pci, and vfio-ap and vfio-ccw of s390x.
    shape.host_devices = shape
        .host_devices
        .saturating_add(u32::from(driver.starts_with("vfio-")));
}

/// A size with QEMU's suffixes (qemu: util/cutils.c qemu_strtosz); without one it counts in units of
/// 2^`default_shift` bytes.
fn size_of(text: &str, default_shift: u32) -> Option<u64> {
    let (number, shift) = match text.char_indices().last()? {
        (_, c) if c.is_ascii_digit() => (text, default_shift),
        (at, c) => {
            let shift = match c.to_ascii_lowercase() {
                'b' => 0,
                'k' => 10,
                'm' => 20,
                'g' => 30,
                't' => 40,
                _ => return None,
            };
            (&text[..at], shift)
        }
    };
    if let Some(hex) = number.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).ok();
    }
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().ok()?;
    let whole = whole.checked_mul(1 << shift)?;
    if fraction.is_empty() {
        return Some(whole);
    }
    let digits = u32::try_from(fraction.len()).ok().filter(|digits| *digits <= 6)?;
    let fraction: u64 = fraction.parse().ok()?;
    whole.checked_add((fraction << shift) / 10_u64.pow(digits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(args: &[&str]) -> QemuArgs {
        QemuArgs::parse(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_libvirt_writes_today() {
        let args = parse(&[
            "qemu",
            "-name",
            "guest=default_vm1,debug-threads=on",
            "-S",
            "-object",
            r#"{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/x"}"#,
            "-machine",
            "pc-q35-rhel9.4.0,usb=off,dump-guest-core=off,memory-backend=pc.ram",
            "-m",
            "size=2097152k,slots=16,maxmem=4194304k",
            "-object",
            r#"{"qom-type":"memory-backend-ram","id":"pc.ram","size":2147483648}"#,
            "-object",
            r#"{"qom-type":"memory-backend-memfd","id":"memvirtiomem0","share":true,"size":2147483648}"#,
            "-device",
            r#"{"driver":"virtio-mem-pci","requested-size":1073741824,"memdev":"memvirtiomem0"}"#,
            "-smp",
            "4,maxcpus=16,sockets=4,dies=1,cores=1,threads=1",
            "-object",
            r#"{"qom-type":"iothread","id":"iothread1"}"#,
            "-device",
            r#"{"driver":"virtio-vga","id":"video0","max_outputs":1}"#,
            "-device",
            r#"{"driver":"vfio-pci","host":"0000:3b:00.0","id":"ua-hostdevice-gpu"}"#,
            "-device",
            "tpm-crb,tpmdev=tpm-tpm0,id=tpm0",
        ]);
        let shape = VmShape {
            vcpus: 4,
            iothreads: 1,
            host_devices: 1,
            graphics: true,
            tpm: true,
        };
        assert_eq!(args.shape, shape);
        assert_eq!(args.name.as_deref(), Some("default_vm1"));
        assert_eq!(args.ram, Some(2 << 30));
        assert_eq!(args.objects.len(), 2);
        assert_eq!(args.objects[1].backend, Backend::Memfd);
        assert_eq!(args.guest_ram(), 3 << 30);
    }

    #[test]
    fn what_people_and_older_libvirt_write() {
        let args = parse(&[
            "qemu",
            "-name",
            "a,,b",
            "--machine",
            "none,accel=kvm:tcg",
            "-m",
            "512",
            "-object",
            "memory-backend-file,id=ram-node0,mem-path=/dev/huge,,pages/x,size=0.5G,share=on",
        ]);
        assert_eq!(args.name.as_deref(), Some("a,b"));
        assert!(args.no_machine);
        assert_eq!(args.ram, Some(512 << 20));
        assert_eq!(args.objects[0].path.as_deref(), Some("/dev/huge,pages/x"));
        assert_eq!(args.objects[0].size, 512 << 20);
    }

    #[test]
    fn what_cannot_be_read_is_skipped() {
        let args = parse(&[
            "qemu",
            "-m",
            "lots",
            "-object",
            "{\"qom-type\":",
            "-object",
            "memory-backend-ram,id=x",
            "-m",
        ]);
        assert_eq!(args, QemuArgs::default());
        assert_eq!(size_of("99999999999T", 0), None);
        assert_eq!(size_of("", 0), None);
        assert_eq!(size_of("1é", 0), None);
    }

    proptest! {
        #[test]
        fn no_command_line_panics(args in proptest::collection::vec("-m|-object|-name|-device|\\PC{0,40}|[0-9.]{0,12}[kMGT]?", 0..8)) {
            let _ = QemuArgs::parse(&args).guest_ram();
        }
    }
}
