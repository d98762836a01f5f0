# A systemd of its own as PID 1 of fresh namespaces, on the files of this machine but with folders of
# its own wherever a service writes. $1: a folder for what is written. The network is the caller's.
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs -o mode=755 tmpfs /run
for place in var/lib var/cache var/log; do mount -t tmpfs -o mode=755 tmpfs /$place; done
mkdir -p /run/etc/upper /run/etc/work
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
rm -rf /etc/systemd/system
mkdir -p /etc/systemd/system /etc/meshd
for unit in systemd-sysctl systemd-modules-load systemd-remount-fs systemd-binfmt systemd-timesyncd \
	systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-sysusers systemd-udevd \
	systemd-udev-trigger systemd-random-seed systemd-update-utmp systemd-machine-id-commit \
	systemd-journal-flush systemd-pcrphase systemd-pcrphase-sysinit systemd-boot-system-token \
	systemd-firstboot systemd-hwdb-update systemd-journal-catalog-update systemd-update-done; do
	ln -s /dev/null /etc/systemd/system/$unit.service
done
printf '[Unit]\nDefaultDependencies=no\n' > /etc/systemd/system/trial.target
cp "$1/config.toml" /etc/meshd/config.toml
export container=trial
exec /usr/lib/systemd/systemd --system --unit=trial.target --log-target=console --show-status=no
