//! Adapters in other languages in a slot of the application. They lie in a binary of their own: to compile one of them takes all
//! processors for a while, and other tests measure times.

// What is shared is not all needed here.
#[allow(dead_code)]
mod common;

use witgate_wasi_serve::Options;

use common::{Backend, Gateway, component, manifest};

/// Composes the application with an adapter of `examples` in the slot custom, and asks a backend through it.
async fn answers_in_capitals(file: &str) {
    let ours = "custom = { path = \"target/components/adapter-stub.wasm\"";
    let changed = manifest().replace(ours, &format!("custom = {{ path = \"target/components/{file}\""));
    assert_ne!(changed, manifest(), "spin.toml has no line {ours}");
    let component = component(&changed);
    let mut backend = Backend::start().await;
    let config = format!(
        "[providers.loud]\nadapter = \"{file}\"\nendpoint = \"http://{}\"\n[models.\"*\"]\ntarget = \"loud\"\n",
        backend.address
    );
    let gateway = Gateway::start(&component, Options { config: Some(config), ..Options::default() }).await;
    // Each request holds an instance that others have used.
    for _ in 0..2 {
        let mut client = gateway.chat(false).await;
        backend.request().await.whole("quiet words").await;
        let (status, answer) = client.json().await;
        assert_eq!((status, answer["choices"][0]["message"]["content"].as_str()), (200, Some("QUIET WORDS")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_in_python_takes_a_slot_by_one_line() {
    answers_in_capitals("adapter-shout-py.wasm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_in_javascript_takes_a_slot_by_one_line() {
    answers_in_capitals("adapter-shout-js.wasm").await;
}
