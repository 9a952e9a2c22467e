# What each socket has that this service was given: its name, and those of its options that are not 0.
my @options = (
    [type => 1, 3], [protocol => 1, 38], [accepts => 1, 30], [reuseaddr => 1, 2], [reuseport => 1, 15],
    [keepalive => 1, 9], [broadcast => 1, 6], [passcred => 1, 16], [passsec => 1, 34], [sndbuf => 1, 7],
    [rcvbuf => 1, 8], [priority => 1, 12], [mark => 1, 36], [v6only => 41, 26], [hops => 41, 16],
    [freebind => 0, 15], [transparent => 0, 19], [tos => 0, 1], [ttl => 0, 2], [pktinfo => 0, 8],
    [nodelay => 6, 1], [keepidle => 6, 4], [keepintvl => 6, 5], [keepcnt => 6, 6], [defer => 6, 9],
);
my @words = ([congestion => 6, 13], [device => 1, 25]);
my @names = split /:/, $ENV{LISTEN_FDNAMES};
for my $at (0 .. $#names) {
    open(my $socket, "+<&=", 3 + $at) or die $!;
    my @line = ($names[$at]);
    push @line, "pipe=" . fcntl($socket, 1032, 0) if -p $socket;
    for (-p $socket ? () : @options) {
        my ($name, $level, $number) = @$_;
        my $value = getsockopt($socket, $level, $number) // next;
        $value = unpack(length $value == 4 ? "i" : "C", $value);
        push @line, "$name=$value" if $value;
    }
    for (-p $socket ? () : @words) {
        my $value = getsockopt($socket, $$_[1], $$_[2]) // next;
        $value =~ s/\0.*//s;
        push @line, "$$_[0]=$value" if $value ne "";
    }
    # Of a socket that listens, TCP_INFO has the length of its queue where others have what was acknowledged.
    my $info = getsockopt($socket, 6, 11) unless -p $socket;
    push @line, "backlog=" . unpack("x28 L", $info) if defined $info && length $info > 32;
    print "@line\n";
}
