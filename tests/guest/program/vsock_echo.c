/* Sends a file to a port of the host over vsock and writes as much that comes back to another: vsock_echo PORT FROM TO */
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Back ends do not close one direction alone, so the end is a number of bytes. */
static int copy(int from, int to, off_t left)
{
    static char buffer[65536];

    while (left > 0) {
        ssize_t got = read(from, buffer, sizeof(buffer));
        if (got <= 0)
            return 1;
        left -= got;
        for (ssize_t done = 0; done < got;) {
            ssize_t put = write(to, buffer + done, got - done);
            if (put <= 0)
                return 1;
            done += put;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_vm host = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST };
    int connection, status = 1;
    struct stat file;
    pid_t sender;

    if (argc != 4 || stat(argv[2], &file) < 0)
        return 2;
    host.svm_port = atoi(argv[1]);
    connection = socket(AF_VSOCK, SOCK_STREAM, 0);
    if (connection < 0 || connect(connection, (struct sockaddr *)&host, sizeof(host)) < 0) {
        perror("connect");
        return 1;
    }
    sender = fork();
    if (sender == 0)
        _exit(copy(open(argv[2], O_RDONLY), connection, file.st_size));
    if (copy(connection, open(argv[3], O_WRONLY | O_CREAT | O_TRUNC, 0600), file.st_size) != 0) {
        perror("receive");
        return 1;
    }
    waitpid(sender, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
