//! Compiles the `.proto` files in pure Rust: nobody needs `protoc`.

use std::error::Error;

use prost::Message as _;

fn main() -> Result<(), Box<dyn Error>> {
    let files = [
        "tidings/v1/publisher.proto",
        "tidings/v1/subscriber.proto",
        "tidings/v1/log.proto",
        "tidings/v1/journal.proto",
        "tidings/v1/bus.proto",
        "tidings/v1/member.proto",
        "tidings/v1/control.proto",
    ];
    let descriptors = protox::compile(files, ["."])?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("tidings.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=tidings");
    Ok(())
}
