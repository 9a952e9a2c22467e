# What stands in for nixpkgs where there is none: `pkgs`, with which the tests evaluate to their scripts and to
# the files of their machines. A package here is a derivation that nobody builds, of the same name: what it
# would install is what cargo has built, or what the machine has itself.
{
  lib ? import ./lib.nix,
  overlays ? [ (import ../overlay.nix) ],
}:
let
  # `files`: where below the package there is what: `built`, a program of cargo's; `own`, a file of the machine's.
  package =
    {
      name,
      files,
      meta ? { },
    }:
    derivation {
      inherit name;
      system = "x86_64-linux";
      builder = "nobody";
    }
    // {
      inherit name files meta;
    };

  ofMachine =
    name: programs:
    package {
      inherit name;
      files = lib.genAttrs (map (program: "bin/${program}") programs) (path: {
        own = "/usr/${path}";
      });
      meta.mainProgram = builtins.head programs;
    };

  # What cargo would build: the values of its flags --bin and --example.
  targets =
    flags:
    if flags == [ ] then
      { }
    else
      let
        name = builtins.elemAt flags 1;
        folder = { "--bin" = ""; "--example" = "examples/"; }.${builtins.head flags};
      in
      { "bin/${name}".built = "${folder}${name}"; } // targets (lib.drop 2 flags);

  buildRustPackage =
    {
      pname,
      version,
      src,
      cargoLock,
      cargoBuildFlags,
      doCheck,
      meta,
      postInstall ? "",
    }:
    assert builtins.pathExists cargoLock.lockFile && toString src != "";
    assert builtins.isString postInstall && !doCheck;
    package {
      name = "${pname}-${version}";
      files = targets cargoBuildFlags;
      inherit meta;
    };

  script =
    name: text:
    package {
      inherit name;
      files."" = {
        text = "#!/bin/bash\n${text}\n";
        mode = "0755";
      };
    };

  base = self: {
    inherit lib;
    rustPlatform = { inherit buildRustPackage; };
    callPackage = file: more: (import file) (builtins.intersectAttrs (builtins.functionArgs (import file)) self // more);
    python3 = ofMachine "python3" [ "python3" ];
    util-linux = ofMachine "util-linux" [ "unshare" "nsenter" ];
    writeShellScript = script;
    testers.runNixOSTest =
      module:
      import ./testing.nix {
        inherit lib module;
        pkgs = self;
      };
  };

  make =
    overlays:
    let
      first = base pkgs // {
        extend = overlay: make (overlays ++ [ overlay ]);
      };
      pkgs = builtins.foldl' (before: overlay: before // overlay pkgs before) first overlays;
    in
    pkgs;
in
make overlays
