# The program `handover`.
{ lib, rustPlatform }:
let
  manifest = lib.importTOML ../Cargo.toml;
in
rustPlatform.buildRustPackage {
  pname = "handover";
  inherit (manifest.package) version;
  src = import ./source.nix { inherit lib; };
  cargoLock.lockFile = ../Cargo.lock;
  cargoBuildFlags = [
    "--bin"
    "handover"
  ];
  # The repository's tests want to be root, and to boot machines of their own. NixOS's are in tests/.
  doCheck = false;
  meta = {
    inherit (manifest.package) description;
    license = [
      lib.licenses.mit
      lib.licenses.asl20
    ];
    mainProgram = "handover";
    platforms = lib.platforms.linux;
  };
}
