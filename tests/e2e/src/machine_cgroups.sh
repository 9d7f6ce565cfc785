# Runs a command in cgroups of its own, one in every hierarchy: kubelets of one kernel must not see each other's pods.
# Arguments: the cgroup's name, the command.
set -eu
group=$1
shift
while read -r _ directory kind options _; do
    case $kind in cgroup | cgroup2) ;; *) continue ;; esac
    own=$directory/$group
    mkdir -p "$own"
    if [ "$kind" = cgroup2 ]; then
        for controller in $(cat "$directory/cgroup.controllers"); do
            echo "+$controller" > "$directory/cgroup.subtree_control" || true
        done
    fi
    # A new cgroup of version 1 has no processors, and takes no process before it has.
    case ,$options, in
    *,cpuset,*) for file in cpuset.cpus cpuset.mems; do cat "$directory/$file" > "$own/$file"; done ;;
    esac
    echo $$ > "$own/cgroup.procs"
done < /proc/mounts
exec "$@"
