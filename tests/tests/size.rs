//! `headroom size` as users call it: known sizes to the byte, and what absurd input gets.

use std::fs::{self, File};

use anyhow::{Context as _, Result, ensure};
use headroom_tests::Run;
use serde_json::Value;

const GIB: u64 = 1 << 30;

fn json(arguments: &[&str]) -> Result<Value> {
    let run = Run::headroom(arguments.iter().chain(&["--json"]))?;
    ensure!(run.status == Some(0) && run.stderr.is_empty(), "{arguments:?}: {run:?}");
    serde_json::from_str(&run.stdout).with_context(|| run.stdout.clone())
}

/// The compute container's limit, bytes.
fn limit(arguments: &[&str]) -> Result<u64> {
    let document = json(arguments)?;
    document["vms"][0]["budget"]["container_limit"]
        .as_u64()
        .with_context(|| document.to_string())
}

/// What others published, or read in a cluster; each says where in `docs/sizing.md`'s sources.
#[test]
fn known_limits_come_out_to_the_byte() -> Result<()> {
    for (arguments, bytes) in [
        ("--kubevirt 1.1 --guest 2Gi --limit 2Gi --request 136Mi", 2_401_517_569),
        (
            "--kubevirt 1.1 --guest 16Gi --limit 16Gi --request 3276Mi",
            17_031_576 << 10,
        ),
        (
            "--kubevirt 1.1 --guest 16Gi --limit 16Gi --request 3276Mi --ratio 1.5",
            17_570_565_824,
        ),
        (
            "--kubevirt 1.1 --guest 16Gi --limit 16Gi --request 3276Mi --ratio 2",
            17_700_798_824,
        ),
        // Harvester makes request and ratio itself.
        ("--harvester 1.4 --memory 2Gi --cpus 1", 2_532_309_561),
    ] {
        let words: Vec<&str> = ["size"].into_iter().chain(arguments.split(' ')).collect();
        let found = limit(&words)?;
        ensure!(found == bytes, "{arguments}: {found}, not {bytes}");
    }
    Ok(())
}

#[test]
fn the_limits_of_both_kernel_logs_are_explained() -> Result<()> {
    for (kernel, memory, request, vcpus) in [
        ("17024340kB", 16 * GIB, 10922 << 20, 2),
        ("67579904kB", 64 * GIB, 64 * GIB, 16),
    ] {
        let document = json(&["size", "fit", kernel])?;
        let best = &document["fits"][0];
        let found = (
            best["memory"].as_u64(),
            best["request"].as_u64(),
            best["vcpus"].as_u64(),
        );
        ensure!(
            found == (Some(memory), Some(request), Some(vcpus)),
            "{kernel}: {document}"
        );
        ensure!(best["kubevirt"] == "0.54.0" && best["ratio"] == "1", "{best}");
        // And back.
        let (memory, request, vcpus) = (memory.to_string(), request.to_string(), vcpus.to_string());
        let forwards = limit(&[
            "size",
            "--kubevirt",
            "0.54",
            "--guest",
            &memory,
            "--limit",
            &memory,
            "--request",
            &request,
            "--cpus",
            &vcpus,
        ])?;
        // The kernel counts whole pages.
        ensure!(format!("{}kB", forwards / 4096 * 4) == kernel, "{kernel}: {forwards}");
    }
    let none = Run::headroom(["size", "fit", "12345kB"])?;
    ensure!(
        none.status == Some(0) && none.stdout.contains("no usual VM"),
        "{none:?}"
    );
    Ok(())
}

#[test]
fn the_documented_matrix_is_printed_with_exact_values_beside_it() -> Result<()> {
    let run = Run::headroom(["size", "table", "--memory", "2Gi", "--cpus", "1", "--harvester", "1.4"])?;
    let rows: Vec<Vec<&str>> = run
        .stdout
        .lines()
        .filter(|line| line.contains('~'))
        .map(|line| line.split_whitespace().collect())
        .collect();
    let expected = [
        "- 0 1948Mi ~2288Mi ~340Mi 2292.67 MiB 344.67 MiB 361408513",
        "256Mi 0 1792Mi ~2288Mi ~500Mi 2292.67 MiB 500.67 MiB 524986369",
        "- 1.0 2Gi ~2288Mi ~240Mi 2292.67 MiB 244.67 MiB 256550913",
        "- 3.0 2Gi ~2768Mi ~720Mi 2782.00 MiB 734.00 MiB 769652913",
        "- 1.5 2Gi ~2408Mi ~360Mi 2415.00 MiB 367.00 MiB 384825913",
        "256Mi 1.5 1792Mi ~2408Mi ~620Mi 2415.00 MiB 623.00 MiB 653261369",
    ];
    let found: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
    ensure!(found == expected, "{found:#?}");
    Ok(())
}

const MANIFEST: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: web
  namespace: shop
  annotations: {harvesterhci.io/reservedMemory: 256Mi}
spec:
  template:
    spec:
      domain:
        cpu: {cores: 2, sockets: 1, threads: 1}
        devices:
          tpm: {}
          hostDevices: [{name: a, deviceName: b}]
        resources: {limits: {cpu: '2', memory: 2Gi}}
";

#[test]
fn a_manifest_says_what_flags_say() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let yaml = folder.path().join("vm.yaml");
    fs::write(&yaml, MANIFEST)?;
    let text = yaml.to_str().context("a path")?;
    let by_flags = json(&[
        "size",
        "--harvester",
        "1.6",
        "--memory",
        "2Gi",
        "--cpus",
        "2",
        "--tpm",
        "--host-devices",
        "1",
        "--reserved",
        "256Mi",
    ])?;
    let by_manifest = json(&["size", "--harvester", "1.6", "--manifest", text])?;
    let (flags, manifest) = (&by_flags["vms"][0], &by_manifest["vms"][0]);
    ensure!(manifest["name"] == "shop/web", "{manifest}");
    for part in ["budget", "reserved", "ratio", "kubevirt"] {
        ensure!(flags[part] == manifest[part], "{part}: {flags} {manifest}");
    }
    // The same as JSON, in a list as kubectl gives it.
    let vm = serde_json::json!({"kind": "List", "items": [{
        "kind": "VirtualMachine", "metadata": {"name": "web", "namespace": "shop",
            "annotations": {"harvesterhci.io/reservedMemory": "256Mi"}},
        "spec": {"template": {"spec": {"domain": {"cpu": {"cores": 2}, "devices": {"tpm": {}, "hostDevices": [{"name": "a"}]},
            "resources": {"limits": {"cpu": "2", "memory": "2Gi"}}}}}}}]});
    fs::write(&yaml, vm.to_string())?;
    let by_json = json(&["size", "--harvester", "1.6", "--manifest", text])?;
    ensure!(by_json == by_manifest, "{by_json}");
    // What the cluster adds to any VM goes with it; what it says itself is not said again.
    let bound = json(&[
        "size",
        "--harvester",
        "1.6",
        "--manifest",
        text,
        "--binding-memory",
        "100Mi",
    ])?;
    let more = |document: &Value| document["vms"][0]["budget"]["container_limit"].as_u64();
    ensure!(
        more(&bound) == more(&by_json).map(|bytes| bytes + (100 << 20)),
        "{bound}"
    );
    let run = Run::headroom(["size", "--manifest", text, "--cpus", "8"])?;
    ensure!(run.status == Some(2) && run.stderr.contains("--cpus"), "{run:?}");
    Ok(())
}

#[test]
fn absurd_input_is_refused_with_a_reason() -> Result<()> {
    let thirty = format!("1{}", "0".repeat(30));
    for (arguments, words) in [
        (&["--memory=-1Gi"][..], "negative"),
        (&["--memory", "1e40"], "too large"),
        (&["--memory", "9Ei"], "too large"),
        (&["--memory", "2GiB"], "is not a quantity"),
        (&["--memory", "\u{1b}[31m2Gi"], "is not a quantity"),
        (&["--memory", "2Gi", "--cpus", &thirty], "1 to 4294967295 vCPUs"),
        (&["--memory", "2Gi", "--cpus", "-3"], "1 to 4294967295 vCPUs"),
        (&["--memory", "2Gi", "--host-devices", &thirty], "--host-devices"),
        (
            &[
                "--memory",
                "2Gi",
                "--passt",
                "18446744073709551615",
                "--kubevirt",
                "1.2",
            ],
            "too large",
        ),
        (&["--memory", "7Ei", "--added-overhead", "7Ei"], "too large"),
        (&["--memory", "2Gi", "--ratio", "1e300"], "too large"),
        (&["--memory", "2Gi", "--ratio", "NaN"], "is not a number"),
        (&["--memory", "2Gi", "--kubevirt", "0.53"], "there is 0.54"),
        (
            &["--memory", "2Gi", "--kubevirt", "0.54", "--ratio", "2"],
            "came with 1.0",
        ),
        (
            &["--memory", "2Gi", "--harvester", "1.4", "--ratio", "0.5"],
            "can't be less than 1",
        ),
        (
            &["--memory", "2Gi", "--harvester", "1.4", "--ratio", "10.1"],
            "can't be greater than 10",
        ),
        (
            &["--memory", "2Gi", "--harvester", "1.4", "--ratio", "much"],
            "can't be converted to float64",
        ),
        (
            &["--memory", "2Gi", "--harvester", "1.4", "--reserved", "2Gi"],
            "equal or greater",
        ),
        (
            &["--memory", "2Gi", "--harvester", "1.4", "--overcommit", "0"],
            "overcommit",
        ),
        (&[], "memory"),
    ] {
        let run = Run::headroom(["size"].iter().chain(arguments))?;
        ensure!(run.status == Some(2) && run.stdout.is_empty(), "{arguments:?}: {run:?}");
        ensure!(
            run.stderr.contains(words),
            "{arguments:?}: no '{words}': {}",
            run.stderr
        );
        ensure!(
            !run.stderr.contains("panicked") && !run.stderr.contains('\u{1b}'),
            "{}",
            run.stderr
        );
    }
    Ok(())
}

#[test]
fn a_huge_or_deep_manifest_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("huge.yaml");
    File::create(&path)?.set_len(100 << 20)?;
    let text = path.to_str().context("a path")?;
    Run::headroom(["size", "--manifest", text])?.expect_one_line(2, &["huge.yaml", "larger than 4 MiB"])?;
    // Small enough to be read, and deep enough to keep a parser busy for hours.
    let deep = "[".repeat(3 << 20);
    fs::write(&path, format!("kind: VirtualMachine\nmetadata: {{name: {deep}"))?;
    Run::headroom(["size", "--manifest", text])?.expect_one_line(2, &["nested too deeply"])?;
    fs::write(&path, "- ".repeat(1 << 20))?;
    Run::headroom(["size", "--manifest", text])?.expect_one_line(2, &["the manifest is not valid"])?;
    Ok(())
}
