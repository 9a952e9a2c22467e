# What the tests run under handover, and what asks it: the sample services `web` and `keeper`, and `clients`,
# which exits 1 if anything was lost. The same programs that the tests of the repository use.
{ lib, rustPlatform }:
let
  manifest = lib.importTOML ../Cargo.toml;
  names = [
    "web"
    "keeper"
    "clients"
  ];
in
rustPlatform.buildRustPackage {
  pname = "handover-samples";
  inherit (manifest.package) version;
  src = import ./source.nix { inherit lib; };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = lib.concatMap (name: [
    "--example"
    name
  ]) names;
  # Examples are built, but not installed by themselves.
  postInstall = ''
    for name in ${lib.escapeShellArgs names}; do
      built=$(find -L target -path "*/release/examples/$name" -type f | head -n 1)
      install -D "$built" "$out/bin/$name"
    done
  '';
  doCheck = false;
  meta = {
    description = "Sample services of handover, and clients that notice any loss";
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    platforms = lib.platforms.linux;
  };
}
