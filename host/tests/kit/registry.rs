//! A real registry, and a push into it as wkg does it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use witgate_config::Digest;

/// `docker-registry`, with its content in a folder of its own.
pub struct Registry {
    pub address: String,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

/// The password of the user `witgate`, in registries that want one, and its bcrypt hash.
pub const PASSWORD: &str = "s3cret";
const HASHED: &str = "witgate:$2b$04$dhHRP.y2Nf3jDJfM0S89H.MKgJE4CeZXdPHvjYpRY3A8L/yYHe1je\n";

impl Registry {
    /// Starts one on a free port; `closed` wants a password.
    pub fn start(closed: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let auth = match closed {
            true => format!("auth: {{htpasswd: {{realm: test, path: {:?}}}}}\n", at("users")),
            false => String::new(),
        };
        std::fs::write(folder.path().join("users"), HASHED).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: {address:?}}}\n{auth}",
            at("content")
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let mut registry = Registry { address, folder, process: None };
        registry.resume();
        registry
    }

    /// Starts it where it was stopped.
    pub fn resume(&mut self) {
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .env_clear()
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry, of Debian's package of that name");
        self.process = Some(process);
        let begun = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            assert!(begun.elapsed() < super::PATIENCE, "docker-registry does not start");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it. What it holds stays.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Pushes a component, and gives the digest of its manifest.
    pub fn push(&self, name: &str, tag: &str, wasm: &[u8]) -> Digest {
        let config = format!(
            r#"{{"created":"2026-11-21T00:00:00Z","author":null,"architecture":"wasm","os":"wasip2","layerDigests":["{}"],"component":{{"exports":[],"imports":[],"target":null}}}}"#,
            Digest::of(wasm)
        );
        self.push_as(name, tag, config.as_bytes(), "application/vnd.wasm.config.v0+json", wasm, wasm.len() as u64)
    }

    /// Pushes an artifact whose manifest says of its layer that it has so many bytes.
    pub fn push_as(&self, name: &str, tag: &str, config: &[u8], kind: &str, layer: &[u8], size: u64) -> Digest {
        for blob in [config, layer] {
            let (status, headers, _) = self.ask("POST", &format!("/v2/{name}/blobs/uploads/"), "", b"");
            assert_eq!(status, 202, "{headers}");
            let location = headers.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().to_owned();
            let path =
                location.split_once("://").map_or(location.as_str(), |(_, rest)| &rest[rest.find('/').unwrap()..]);
            let path = format!("{path}&digest={}", Digest::of(blob));
            let (status, ..) = self.ask("PUT", &path, "application/octet-stream", blob);
            assert_eq!(status, 201);
        }
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": kind, "digest": Digest::of(config).as_str(), "size": config.len()},
            "layers": [{"mediaType": "application/wasm", "digest": Digest::of(layer).as_str(), "size": size}],
        })
        .to_string();
        let path = format!("/v2/{name}/manifests/{tag}");
        let (status, _, body) =
            self.ask("PUT", &path, "application/vnd.oci.image.manifest.v1+json", manifest.as_bytes());
        assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
        Digest::of(manifest.as_bytes())
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        // "witgate:s3cret"; a registry that wants no password does not look.
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Basic d2l0Z2F0ZTpzM2NyZXQ=\r\nconnection: close\r\n\
             content-type: {kind}\r\ncontent-length: {length}\r\n\r\n",
            self.address
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        // The query of a location has capitals.
        let exact = String::from_utf8_lossy(&answer[..end]).into_owned();
        let head = head
            .lines()
            .zip(exact.lines())
            .map(|(lower, exact)| match lower.split_once(": ") {
                Some((name, _)) => format!("{name}: {}", &exact[name.len() + 2..]),
                None => exact.to_owned(),
            })
            .collect::<Vec<_>>()
            .join("\n");
        let status = exact.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head, answer[end + 4..].to_vec())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
