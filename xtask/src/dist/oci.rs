//! An image of the Open Container Initiative with one program in it, made without a container engine: an image layout
//! (image-layout.md of the image specification 1.1) in a tar archive, as `skopeo`, `podman load` and `ctr images import`
//! read it.

use anyhow::Result;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::archive::{Entry, gzip, tar};
use super::hex;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
/// Where the image is expected: manifests in `deploy/` name it so.
pub const NAME: &str = "headroom";

/// The archive: an image with these files, whose command is the first argument of `headroom`.
///
/// # Errors
/// When a file does not fit into an archive.
pub fn image(files: &[Entry], version: &str, time: u64) -> Result<Vec<u8>> {
    let tree = tar(files, time)?;
    let mut blobs = Blobs::default();
    let layer = blobs.add(LAYER, gzip(&tree)?);
    let created = Timestamp::from_second(time.try_into()?)?.to_string();
    let config = json!({
        "created": created,
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/headroom"],
            "Cmd": ["--help"],
            "Env": ["PATH=/usr/bin"],
            "WorkingDir": "/",
            "Labels": {
                "org.opencontainers.image.title": NAME,
                "org.opencontainers.image.version": version,
                "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
            },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&tree)] },
        "history": [{ "created": created, "created_by": "headroom" }],
    });
    let config = blobs.add(CONFIG, config.to_string().into_bytes());
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config,
        "layers": [layer],
    });
    let mut manifest = blobs.add(MANIFEST, manifest.to_string().into_bytes());
    manifest["platform"] = json!({ "architecture": "amd64", "os": "linux" });
    manifest["annotations"] = json!({
        // The tag in the layout, and the whole name that containerd looks for.
        "org.opencontainers.image.ref.name": version,
        "io.containerd.image.name": format!("localhost/{NAME}:{version}"),
    });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] });
    let mut layout = blobs.0;
    layout.push(Entry::file("index.json", index.to_string()));
    layout.push(Entry::file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#));
    tar(&layout, time)
}

/// Contents by digest.
#[derive(Default)]
struct Blobs(Vec<Entry>);

impl Blobs {
    /// Adds one, and describes it.
    fn add(&mut self, media_type: &str, data: Vec<u8>) -> Value {
        let digest = digest(&data);
        let descriptor = json!({ "mediaType": media_type, "digest": digest, "size": data.len() });
        let path = format!("blobs/{}", digest.replace(':', "/"));
        self.0.push(Entry::file(path, data));
        descriptor
    }
}

fn digest(data: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(data)))
}
