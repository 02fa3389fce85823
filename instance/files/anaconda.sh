# Anaconda on PATH in login shells.
case ":$PATH:" in
    *:/opt/anaconda3/bin:*) ;;
    *) PATH=/opt/anaconda3/bin:$PATH ;;
esac
export PATH
