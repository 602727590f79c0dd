#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidings_fuzz::proxy_header(data));
