# What `run`, `fuzz/run`, `demo` and `../nix-vm-tests/run` need before cargo can build: read by them, from the top of
# the clone.
PATH=$PATH:$HOME/.cargo/bin

step() { echo "== $*"; "$@"; }

if [ "$(id -u)" = 0 ] && [ -e /etc/debian_version ]; then
    packages=()
    command -v cc > /dev/null || packages+=(gcc libc6-dev)
    # libFuzzer is C++.
    [ "${0##*/}" != run ] || command -v c++ > /dev/null || packages+=(g++)
    # Clients that other people wrote.
    [ "${0##*/}" != run ] || command -v curl > /dev/null || packages+=(curl)
    [ "${0##*/}" != run ] || command -v wrk > /dev/null || packages+=(wrk)
    command -v mmdebstrap > /dev/null || packages+=(mmdebstrap)
    [ -e /usr/share/doc/debian-archive-keyring ] || packages+=(debian-archive-keyring)
    # Clients of sd_notify(3) that are not ours, for the stand-in to be judged by.
    if [ "${0##*/}" = run ]; then
        command -v systemd-notify > /dev/null || packages+=(systemd)
        for package in python3-sdnotify python3-systemd libsystemd-dev; do
            [ -e "/usr/share/doc/$package" ] || packages+=("$package")
        done
    fi
    # Nix evaluates nix-vm-tests, python3 runs its scripts, and QEMU those that want a kernel of their own.
    if [ "${0##*/}" = run ]; then
        command -v nix-instantiate > /dev/null || packages+=(nix-bin)
        command -v python3 > /dev/null || packages+=(python3)
        case " $* " in *" --vm "*) command -v qemu-system-x86_64 > /dev/null || packages+=(qemu-system-x86) ;; esac
    fi
    if [ ${#packages[@]} -gt 0 ]; then
        step apt-get update -qq
        step env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}"
    fi
fi
command -v cargo > /dev/null || { echo "no cargo for $(id -un): install Rust, https://rustup.rs" >&2; exit 1; }
# Builds the Debian package that a test installs.
[ "${0##*/}" != run ] || PATH=$PATH:target/tools/bin cargo deb --version > /dev/null 2>&1 ||
    step cargo install --quiet --locked --no-default-features --root target/tools cargo-deb
