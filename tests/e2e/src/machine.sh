# The first process of a test's machine: namespaces of its own, what it writes kept apart, a containerd at the usual place.
# Arguments: a directory of the machine's files, its name, its address.
set -eu
files=$1 name=$2 address=$3
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
# The cgroups that it was started in are its roots.
grep -E '^[^ ]+ [^ ]+ cgroup2? ' /proc/mounts > /run/hierarchies
while read -r _ directory kind options _; do
    umount "$directory"
    names=$(echo "$options" | tr , '\n' | grep -vE '^(rw|ro|relatime|noatime|nosuid|nodev|noexec|xattr|clone_children|nsdelegate|memory_recursiveprot)$' | paste -sd, -)
    mount -t "$kind" ${names:+-o "$names"} cgroup "$directory"
    if [ "$kind" = cgroup2 ]; then
        # A cgroup that gives its children controllers has no processes itself.
        mkdir -p "$directory/system"
        echo $$ > "$directory/system/cgroup.procs"
        for controller in $(cat "$directory/cgroup.controllers"); do
            echo "+$controller" > "$directory/cgroup.subtree_control" || true
        done
    fi
done < /run/hierarchies
mkdir -p /run/netns /run/lock "$files/containerd" "$files/log" "$files/overlay"
for directory in /etc /root /var/lib /opt; do
    upper=$files/overlay$directory
    mkdir -p "$upper/upper" "$upper/work"
    mount -t overlay overlay -o "lowerdir=$directory,upperdir=$upper/upper,workdir=$upper/work" "$directory"
done
mkdir -p /var/lib/containerd /var/lib/kubelet
mount --bind "$files/containerd" /var/lib/containerd
mount --bind "$files/log" /var/log
rm -rf /etc/cni/net.d /etc/kubernetes /var/lib/cni /var/lib/etcd /var/lib/kedge /var/lib/kubelet/*
hostname "$name"
rm -f /etc/hosts /etc/resolv.conf /etc/hostname
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" > /etc/hosts
printf '%s\n' "$name" > /etc/hostname
tr -d - < /proc/sys/kernel/random/uuid > /etc/machine-id
: > /etc/resolv.conf
ip link set lo up
ip link add uplink type bridge
ip address add "$address/24" dev uplink
ip link set uplink up
ip route add default via "$address"
echo 1 > /proc/sys/net/ipv4/ip_forward
# What belongs to the whole machine shows as a copy, so that nobody changes it from here.
mkdir -p /run/inotify
for file in /proc/sys/fs/inotify/*; do cat "$file" > "/run/inotify/${file##*/}"; done
mount --bind /run/inotify /proc/sys/fs/inotify
printf 'Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n' > /run/swaps
mount --bind /run/swaps /proc/swaps
mount --make-rshared /
mkdir -p /etc/containerd
cat > /etc/containerd/config.toml <<CONFIG
version = 2
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
CONFIG
containerd > /var/log/containerd.log 2>&1 &
until [ -S /run/containerd/containerd.sock ]; do sleep 0.05; done
echo ready
# Ends when whoever started it is gone; collects whatever ends until then.
exec 3<&0
cat <&3 > /dev/null &
wait $!
