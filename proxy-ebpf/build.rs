fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Without it bpf-linker turns every zeroed key into a call of a memset that goes byte by byte: eight times the
    // instructions for the verifier, and a seventh of the run time of a small program.
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "bpf") {
        println!("cargo::rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    }
}
