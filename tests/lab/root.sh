# Finishes a fresh root tree for life as a machine; mmdebstrap runs this with the tree as $1.
# The text of this file is part of the tree's cache key: to change it is to build anew.
set -eu
root=$1
units=$root/etc/systemd/system

# What needs hardware, the host's kernel settings or a first boot, and what only costs time.
for unit in apt-daily.timer apt-daily-upgrade.timer console-getty.service container-getty@.service \
    dev-hugepages.mount dev-mqueue.mount dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
    fstrim.timer getty.target getty@.service getty-static.service ldconfig.service nginx.service \
    proc-sys-fs-binfmt_misc.automount run-lock.mount serial-getty@.service sys-fs-fuse-connections.mount \
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-ask-password.socket \
    systemd-battery-check.service systemd-binfmt.service systemd-bootctl.socket systemd-creds.socket \
    systemd-factory-reset.socket systemd-firstboot.service systemd-hwdb-update.service \
    systemd-journal-catalog-update.service systemd-journal-flush.service systemd-journald-audit.socket \
    systemd-machine-id-commit.service systemd-modules-load.service systemd-mute-console.socket \
    systemd-networkd.service systemd-nsresourced.socket systemd-pcrextend.socket systemd-pcrlock.socket \
    systemd-pcrphase.service systemd-random-seed.service systemd-remount-fs.service systemd-repart.socket \
    systemd-resolved.service systemd-sysctl.service systemd-sysext.socket systemd-sysusers.service \
    systemd-timesyncd.service systemd-tmpfiles-clean.timer systemd-tmpfiles-setup-dev-early.service \
    systemd-tmpfiles-setup-dev.service systemd-udev-trigger.service systemd-udevd.service \
    systemd-update-done.service systemd-update-utmp-runlevel.service systemd-update-utmp.service \
    systemd-userdbd.socket tmp.mount; do
    ln -sf /dev/null "$units/$unit"
done
ln -sf /usr/lib/systemd/system/multi-user.target "$units/default.target"

mkdir -p "$root/etc/systemd/journald.conf.d" "$root/etc/systemd/system.conf.d" "$root/etc/systemd/user.conf.d"
# A test reads all that was said: nothing is dropped for being said too fast.
cat > "$root/etc/systemd/journald.conf.d/lab.conf" <<'END'
[Journal]
Storage=volatile
RateLimitIntervalSec=0
RateLimitBurst=0
Audit=no
ReadKMsg=no
ForwardToSyslog=no
ForwardToWall=no
END
for manager in system user; do
    cat > "$root/etc/systemd/$manager.conf.d/lab.conf" <<'END'
[Manager]
DefaultTimeoutStartSec=30s
DefaultTimeoutStopSec=15s
DefaultDeviceTimeoutSec=5s
END
done

: > "$root/etc/fstab"
printf '127.0.0.1 localhost\n::1 localhost\n' > "$root/etc/hosts"
chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash tester
chroot "$root" systemd-sysusers
chroot "$root" ldconfig
# Stamps from the far future: no boot finds that /etc or /var want an update.
touch -d 2038-01-01 "$root/etc/.updated" "$root/var/.updated"
