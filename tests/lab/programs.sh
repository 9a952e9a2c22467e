# Builds the two compiled servers of the scenarios in a fresh root tree, with their sources in
# /opt/programs; mmdebstrap runs this with the tree as $1. What compiled them does not stay.
# The text of this file is part of the tree's cache key: to change it is to build anew.
set -eu
root=$1

# Debian's JRE has the compiler as a module, which saves the JDK.
chroot "$root" java -m jdk.compiler/com.sun.tools.javac.Main -d /opt/programs /opt/programs/Server.java
chroot "$root" env CGO_ENABLED=0 GOCACHE=/tmp/cache go build -ldflags=-s -o /opt/programs/server /opt/programs/server.go
rm -r "$root/tmp/cache"
chroot "$root" go env GOVERSION > "$root/opt/programs/server.version"
compiler=$(chroot "$root" dpkg-query -W -f '${Package} ' 'golang-*')
chroot "$root" dpkg --purge $compiler

# A scenario starts what it needs.
ln -sf /dev/null "$root/etc/systemd/system/redis-server.service"
