//! The command `pgrung`.

fn main() -> std::process::ExitCode {
    pgrung::internal::main()
}
