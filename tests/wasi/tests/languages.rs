//! Adapters in other languages in a slot of the application. They lie in a binary of their own: to compile one of them takes all
//! processors for a while, and other tests measure times.

// What is shared is not all needed here.
#[allow(dead_code)]
mod common;

use common::answers_in_capitals;

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_in_python_takes_a_slot_by_one_line() {
    answers_in_capitals("adapter-shout-py.wasm").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adapter_in_javascript_takes_a_slot_by_one_line() {
    answers_in_capitals("adapter-shout-js.wasm").await;
}
